"""The options that both programs of the bench share: where the peers are.

The peers live in an environment of their own (bench/peers.sh makes it), because uWSGI's asyncio engine runs on CPython
3.11 only and because nobody should have to install five servers to work on one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PEERS_VARIABLE = "CORELET_BENCH_PEERS"
DEFAULT_PEERS = Path(__file__).resolve().parents[1] / ".venv-bench" / "bin"


def add_peers_option(parser: argparse.ArgumentParser) -> None:
    """Add --peers, whose default is the variable CORELET_BENCH_PEERS, then .venv-bench/bin."""
    parser.add_argument(
        "--peers",
        default=os.environ.get(PEERS_VARIABLE, str(DEFAULT_PEERS)),
        metavar=f"BIN[{os.pathsep}BIN…]",
        help=f"folders with the peers' commands, the first that has one wins (${PEERS_VARIABLE}, or %(default)s)",
    )


def peers_folders(options: argparse.Namespace) -> list[Path]:
    """The folders given, absolute: servers run in a folder of their own."""
    return [Path(folder).absolute() for folder in str(options.peers).split(os.pathsep) if folder]
