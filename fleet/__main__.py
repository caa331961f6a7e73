"""`python -m stpm.fleet` is `stpm-fleet`."""

from stpm.fleet.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-fleet")
