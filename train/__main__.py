"""`python -m stpm.train` is `stpm-train`."""

from stpm.train.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-train")
