"""Whether a running workspace is stopped for being idle, and if not, what keeps it: one ordered list of checks."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stokehold.api.v1alpha1.dev_workspace import Idle
from stokehold.model.pods import Pod
from stokehold.model.reasons import Idleness
from stokehold.model.snapshot import Workspace
from stokehold.model.statuses import whole
from stokehold.planning.culling.clock import Clock
from stokehold.planning.culling.exemption import standing_exemption
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.culling.signals import Evidence, Signal, State
from stokehold.planning.culling.snoozing import Snoozed

ZERO = timedelta()


@dataclass(frozen=True, slots=True)
class Watched:
    """A workspace in which somebody could work, and what is known of its use."""

    workspace: Workspace
    pod: Pod
    started: datetime
    signals: tuple[Signal, ...]
    evidence: Evidence
    clock: Clock
    snoozed: Snoozed

    def seen(self, clock: Clock) -> "Watched":
        """The same with the clock brought forward."""
        return replace(self, clock=clock)

    @property
    def idle(self) -> Idle:
        """How its owner wants it judged."""
        return self.workspace.spec.idle or Idle()

    @property
    def after(self) -> timedelta:
        """For how long it must be quiet."""
        return self.idle.after.to_timedelta()

    @property
    def lead(self) -> timedelta:
        """How long before the stop its owner is warned."""
        return self.idle.warn_before.to_timedelta()

    @property
    def earliest_stop(self) -> datetime | None:
        """When it has been quiet and has run for long enough, if it stays quiet; None while nobody can say."""
        if self.evidence.state is not State.QUIET or self.clock.observed is None:
            return None
        quiet = self.clock.observed + (self.after - self.clock.quiet)
        return max(quiet, self.started + self.idle.min_running.to_timedelta())


@dataclass(frozen=True, slots=True)
class Scene:
    """What the verdict depends on beside the workspace itself."""

    now: datetime
    settings: CullingSettings
    mass_idle: int = 0
    pressed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is idle (None: unknown), why, and what follows."""

    idle: bool | None
    reason: Idleness
    message: str
    warned_at: datetime | None = None
    stop_at: datetime | None = None
    stops_now: bool = False


def judge(one: Watched, scene: Scene) -> Verdict:
    """The first check that holds it decides; without one it is warned, and stopped when the warning is over."""
    for check in CHECKS:
        held = check(one, scene)
        if held is not None:
            return held
    return _warn_or_stop(one, scene)


def is_candidate(one: Watched, now: datetime, settings: CullingSettings) -> bool:
    """Whether only pressure and the breaker decide about its GPUs now."""
    scene = Scene(now, settings, pressed=frozenset({one.workspace.uid}))
    verdict = judge(one, scene)
    return verdict.reason is Idleness.WARNED


def _in_use(one: Watched, scene: Scene) -> Verdict | None:
    if one.evidence.state is not State.ACTIVE:
        return None
    return Verdict(False, Idleness.IN_USE, one.evidence.because)


def _unknown(one: Watched, scene: Scene) -> Verdict | None:
    if one.evidence.state is not State.UNKNOWN:
        return None
    return Verdict(None, Idleness.SIGNAL_UNKNOWN, f"{one.evidence.because}; nothing is stopped meanwhile")


def _exempt(one: Watched, scene: Scene) -> Verdict | None:
    exempt = standing_exemption(one.idle, scene.now)
    if exempt is None:
        return None
    message = f"exempt until {exempt.until:%Y-%m-%d %H:%M:%S} UTC: {exempt.reason}"
    return Verdict(_is_long_quiet(one), Idleness.EXEMPT, message)


def _snoozed(one: Watched, scene: Scene) -> Verdict | None:
    until = one.snoozed.until
    if until is None or until <= scene.now:
        return None
    message = f"its owner has put the stop off until {until:%Y-%m-%d %H:%M:%S} UTC"
    return Verdict(_is_long_quiet(one), Idleness.SNOOZED, message)


def _too_short(one: Watched, scene: Scene) -> Verdict | None:
    if one.clock.quiet >= one.after - _lead(one):
        return None
    since = one.clock.quiet_since
    told = f"quiet since {since:%H:%M:%S} UTC" if since is not None else "quiet"
    return Verdict(False, Idleness.IDLE_TOO_SHORT, f"{told}, not yet for {one.idle.after}", stop_at=_expected(one))


def _poorly_measured(one: Watched, scene: Scene) -> Verdict | None:
    if (one.clock.coverage or 0.0) >= scene.settings.least_coverage:
        return None
    missing = round(one.clock.unknown.total_seconds())
    message = f"for {missing} s of the time there are no measurements; it must be seen quiet for longer"
    return Verdict(False, Idleness.COVERAGE_TOO_LOW, message)


def _too_young(one: Watched, scene: Scene) -> Verdict | None:
    ends = one.started + one.idle.min_running.to_timedelta()
    if scene.now >= ends - _lead(one):
        return None
    message = f"runs until {ends:%Y-%m-%d %H:%M:%S} UTC at least (spec.idle.minRunning)"
    return Verdict(_is_long_quiet(one), Idleness.MIN_RUNNING, message, stop_at=_expected(one))


def _dry_run(one: Watched, scene: Scene) -> Verdict | None:
    if one.idle.mode != "DryRun":
        return None
    return Verdict(True, Idleness.DRY_RUN, "it would be stopped now; spec.idle.mode is DryRun")


def _mass_idle(one: Watched, scene: Scene) -> Verdict | None:
    if not scene.mass_idle:
        return None
    swarm = f"{scene.mass_idle} workspaces turned quiet, or came back into sight, at once"
    message = f"{swarm}; their signals are not trusted, nothing is stopped"
    return Verdict(_is_long_quiet(one), Idleness.MASS_IDLE, message)


def _no_pressure(one: Watched, scene: Scene) -> Verdict | None:
    if one.idle.policy == "Always" or one.workspace.uid in scene.pressed:
        return None
    return Verdict(_is_long_quiet(one), Idleness.NO_PRESSURE, "no waiting work could start on its GPUs")


CHECKS = (
    _in_use,  # somebody works
    _unknown,  # nobody can tell
    _exempt,  # the platform team said no
    _snoozed,  # the owner said not now
    _too_short,  # not idle for long enough to be warned
    _poorly_measured,  # for too much of the time nobody looked
    _too_young,  # only just started
    _dry_run,  # reports only
    _mass_idle,  # too many at once to be true
    _no_pressure,  # nobody wants its GPUs
)


def _warn_or_stop(one: Watched, scene: Scene) -> Verdict:
    """A warning that is on record, over, and followed by one more look that saw it quiet, ends in a stop."""
    told = one.workspace.status.warned_at
    warned_at = told if told is not None and told >= one.started else None
    warned_at, is_told = (warned_at or whole(scene.now)), warned_at is not None
    warned_until = warned_at + one.lead
    stop_at = max(one.earliest_stop or warned_until, warned_until)
    message = f"will be stopped at {stop_at:%Y-%m-%d %H:%M:%S} UTC"
    seen_since = one.clock.observed is not None and one.clock.observed >= warned_until
    ripe = is_told and scene.now >= stop_at and seen_since and one.clock.quiet >= one.after
    return Verdict(True, Idleness.WARNED, message, warned_at, stop_at, stops_now=ripe)


def _lead(one: Watched) -> timedelta:
    """Nobody is warned in a dry run."""
    return one.lead if one.idle.mode == "Enforce" else ZERO


def _is_long_quiet(one: Watched) -> bool:
    return one.clock.quiet >= one.after


def _expected(one: Watched) -> datetime | None:
    """The stop that its owner can expect; none where nothing is enforced or only under pressure."""
    return one.earliest_stop if one.idle.mode == "Enforce" and one.idle.policy == "Always" else None
