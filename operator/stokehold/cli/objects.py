"""How the user's commands fetch what they show, and the errors that people get when that fails."""

from datetime import UTC, datetime

import click

from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cluster.client import KubeApi
from stokehold.cluster.connection import current_namespace
from stokehold.cluster.errors import ApiError, ConnectError, ForbiddenError, NotFoundError
from stokehold.cluster.resources import TRAINING_JOBS

JOB_WORDS = ("tj", "trainingjob", "trainingjobs", "trainingjobs.stokehold.dev")


def now() -> datetime:
    """The time, for "n seconds ago"."""
    return datetime.now(UTC)  # noqa: TID251 - a command that a person runs has no other clock


async def fetch_training_job(kubeconfig: str | None, namespace: str | None, what: str) -> TrainingJob:
    """The job that `tj/NAME` or `NAME` means; click.ClickException with what to do when there is none."""
    kind, _, name = what.rpartition("/")
    if kind and kind.lower() not in JOB_WORDS:
        raise click.UsageError(f"{kind} is not known here: use tj/NAME")
    try:
        place = namespace or current_namespace(kubeconfig)
        api = await KubeApi.connect(kubeconfig=kubeconfig, user_agent="stokehold-cli")
    except ConnectError as error:
        raise click.ClickException(f"{error}. Set KUBECONFIG or --kubeconfig.") from error
    try:
        return TrainingJob.read(await api.get(TRAINING_JOBS, name, place))
    except NotFoundError as error:
        raise click.ClickException(f"no TrainingJob {name} in namespace {place}; try kubectl get tj -A") from error
    except ForbiddenError as error:
        raise click.ClickException(f"you may not read TrainingJobs in namespace {place}: {error}") from error
    except ApiError as error:
        raise click.ClickException(f"the API server did not answer: {error}") from error
    finally:
        await api.close()
