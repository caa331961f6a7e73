"""`python -m stpm.export` is `stpm-export`."""

from stpm.export.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-export")
