"""How far ahead `spec.idle.exempt` may reach: nobody is left alone for ever by a date far away. Pure."""

from datetime import datetime, timedelta

from stokehold.api.v1alpha1.dev_workspace import Exemption, Idle

LONGEST = timedelta(days=30)


def standing_exemption(idle: Idle, now: datetime) -> Exemption | None:
    """The exemption that holds now."""
    exempt = idle.exempt
    if exempt is None or exempt.until <= now or why_too_long(idle, now) is not None:
        return None
    return exempt


def why_too_long(idle: Idle, now: datetime) -> str | None:
    """What is wrong with an exemption that reaches too far, in words that stay the same while time goes on."""
    exempt = idle.exempt
    if exempt is None or exempt.until <= now + LONGEST:
        return None
    return (
        f"spec.idle.exempt.until: {exempt.until:%Y-%m-%d} is too far ahead and does not count; "
        f"at most {LONGEST.days} days from now are allowed, set it anew when they are over"
    )
