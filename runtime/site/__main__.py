"""`python -m stpm.runtime.site` is `stpm-calibrate`."""

from stpm.runtime.site.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-calibrate")
