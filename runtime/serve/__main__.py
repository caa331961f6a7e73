"""`python -m stpm.runtime.serve` is `stpm-serve`."""

from stpm.runtime.serve.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-serve")
