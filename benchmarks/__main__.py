"""`python -m stpm.benchmarks` is `stpm-bench`."""

from stpm.benchmarks.cli import main

if __name__ == "__main__":
    main(prog_name="stpm-bench")
