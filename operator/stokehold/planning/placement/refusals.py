"""What to tell the owner of work whose pods, Service or Deployment the API server would not take. Pure."""

from stokehold.model.reasons import Waiting
from stokehold.model.statuses import Owner
from stokehold.planning.placement.explain import Explanation


def refusal(owner: Owner) -> Explanation | None:
    """The reason and the next step; None when nothing was refused the last time."""
    if not owner.create_error:
        return None
    if owner.name_taken:
        return Explanation(
            Waiting.NAME_TAKEN,
            owner.create_error,
            f"Delete the other one, or create the {owner.KIND} under another name; it is tried again by itself.",
        )
    return Explanation(
        Waiting.CREATION_REFUSED,
        f"the API server refused to create the pods: {owner.create_error}",
        "Mend what it says (a ResourceQuota, a policy, spec.podTemplate); it is tried again by itself.",
    )
