"""cheaper: how many workers there should be, by how busy they are. Pure; the master does what comes out.

The rules are those of uWSGI's cheaper_busyness plugin. Once in each cycle (cheaper-overload) the busyness of the
workers is averaged. Above cheaper-busyness-max, cheaper-step workers are added, up to processes. Below
cheaper-busyness-min for cheaper-busyness-multiplier cycles, one is taken away, down to cheaper. A cycle between the two
is not counted, and three of them in a row begin the count anew. A worker that is still starting counts as idle, as it
does there: it is the answer to the load, and a second answer should not be given before the first is seen.

uWSGI can get into a loop, in which the worker that was taken away is missed at once, and lengthens the cycle each time
(cheaper-busyness-penalty). Here one is not taken away if the others would then be above the maximum. So there is no
loop under a steady load, and no penalty.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corelet.base.config import Config
from corelet.base.errors import ConfigError

logger = logging.getLogger("corelet.process")

BETWEEN_CYCLES = 3
"""So many cycles in a row between minimum and maximum, and the idle ones before them count no more (as in uWSGI)."""


@dataclass(frozen=True)
class Policy:
    """The bounds and the rules. Without cheaper, lowest and highest are both the number of processes."""

    lowest: int
    highest: int
    initial: int
    step: int = 1
    cycle_seconds: float = 3.0
    busyness_min: float = 25.0
    busyness_max: float = 50.0
    multiplier: int = 10

    @classmethod
    def from_config(cls, config: Config) -> Policy:
        """The policy that the cheaper options ask for. Raises ConfigError for bounds that exclude each other."""
        processes = config.processes
        if not config.cheaper:
            return cls(processes, processes, processes)
        if config.cheaper >= processes:
            raise ConfigError(
                f"--cheaper: expected fewer than processes ({processes}); got {config.cheaper}; "
                "raise processes, which is the most there will be"
            )
        if config.cheaper_busyness_min >= config.cheaper_busyness_max:
            raise ConfigError(
                f"--cheaper-busyness-min: expected less than cheaper-busyness-max ({config.cheaper_busyness_max}); "
                f"got {config.cheaper_busyness_min}; leave a gap between them, of half the maximum"
            )
        return cls(
            lowest=config.cheaper,
            highest=processes,
            initial=_initial(config),
            step=config.cheaper_step,
            cycle_seconds=config.cheaper_overload,
            busyness_min=config.cheaper_busyness_min,
            busyness_max=config.cheaper_busyness_max,
            multiplier=config.cheaper_busyness_multiplier,
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether there is anything to judge."""
        return self.lowest < self.highest

    def begin(self, now: float) -> Sizing:
        """How it starts: with the initial number, and the first judgement a cycle from now."""
        return Sizing(self.initial, 0, now)


def _initial(config: Config) -> int:
    """As in uWSGI, one that lies outside the bounds is moved to the nearer of them, with a warning."""
    asked = config.cheaper_initial or config.cheaper
    initial = min(max(asked, config.cheaper), config.processes)
    if initial != asked:
        logger.warning(
            "cheaper-initial %d is not between cheaper and processes; starting with %d workers", asked, initial
        )
    return initial


@dataclass(frozen=True)
class Sizing:
    """How many workers are wanted, how many cycles in a row they were idle, and when they were judged last.

    `between` is how many cycles in a row were neither idle nor busy.
    """

    wanted: int
    below: int
    judged_at: float
    between: int = 0


def judge(policy: Policy, sizing: Sizing, busyness_percent: Sequence[float], now: float) -> Sizing:
    """The sizing after a look at the busyness, 0 to 100, of each worker that is READY.

    Before the cycle is over nothing changes. `wanted` stays within the bounds of the policy, whatever it was.
    """
    if now - sizing.judged_at < policy.cycle_seconds:
        return sizing
    judged = replace(sizing, wanted=min(max(sizing.wanted, policy.lowest), policy.highest), judged_at=now)
    if not busyness_percent:
        return judged
    total = sum(busyness_percent)
    average = total / max(len(busyness_percent), judged.wanted)
    if average > policy.busyness_max:
        return replace(judged, wanted=min(judged.wanted + policy.step, policy.highest), below=0, between=0)
    if average < policy.busyness_min:
        return _idle(policy, judged, total)
    between = judged.between + 1
    return replace(judged, between=between, below=0 if between >= BETWEEN_CYCLES else judged.below)


def _idle(policy: Policy, sizing: Sizing, total: float) -> Sizing:
    """After a cycle below the minimum: one worker fewer, if the count is full and the others can do the work."""
    if sizing.wanted <= policy.lowest:
        return replace(sizing, below=0, between=0)
    below = sizing.below + 1
    if below < policy.multiplier:
        return replace(sizing, below=below, between=0)
    if sizing.wanted > 1 and total / (sizing.wanted - 1) > policy.busyness_max:
        return replace(sizing, below=policy.multiplier, between=0)
    return replace(sizing, wanted=sizing.wanted - 1, below=0, between=0)
