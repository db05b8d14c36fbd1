"""`python -m corelet`: the command without its console script."""

from corelet.cli import run

if __name__ == "__main__":
    run()
