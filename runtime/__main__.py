"""`python -m stpm.runtime` is `stpm-run`."""

from stpm.runtime.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-run")
