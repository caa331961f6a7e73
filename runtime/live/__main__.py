"""`python -m stpm.runtime.live` is `stpm-live`."""

from stpm.runtime.live.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-live")
