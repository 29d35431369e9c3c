"""Which cluster a command asks, as whom, and where in it: options like kubectl's, and what people read on failure."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from stokehold.cluster.client import KubeApi
from stokehold.cluster.connection import current_namespace
from stokehold.cluster.errors import ApiError, ConnectError, ForbiddenError, InvalidError, NotFoundError

T = TypeVar("T")
Command = Callable[..., None]

LABEL = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _namespace(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """What cannot be a namespace would be a part of another path."""
    if value and not LABEL.fullmatch(value):
        raise click.BadParameter(f"{value} cannot be the name of a namespace")
    return value


KUBECONFIG = click.option("--kubeconfig", help="Default: $KUBECONFIG, else ~/.kube/config, else the pod's account.")
CONTEXT = click.option("--context", help="The context of the kubeconfig. Default: its current one.")
NAMESPACE = click.option("-n", "--namespace", callback=_namespace, help="Default: the namespace of the context.")
EVERYWHERE = click.option("-A", "--all-namespaces", is_flag=True, help="Look into all namespaces.")


@dataclass(frozen=True, slots=True)
class Access:
    """The answers to the options above."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None = None
    everywhere: bool = False

    @property
    def place(self) -> str | None:
        """The namespace to look into; None means all of them."""
        if self.everywhere:
            return None
        with told():
            return self.namespace or current_namespace(self.kubeconfig, self.context)

    @property
    def one_place(self) -> str:
        """The namespace of the one object that the command is about."""
        with told():
            return self.namespace or current_namespace(self.kubeconfig, self.context)


def access_options(*, namespaced: bool = True, everywhere: bool = False) -> Callable[[Command], Command]:
    """Give a command the options, and their answers as its argument `access`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_access(
            kubeconfig: str | None,
            context: str | None,
            namespace: str | None = None,
            all_namespaces: bool = False,
            **others: Any,
        ) -> None:
            command(access=Access(kubeconfig, context, namespace, all_namespaces), **others)

        options = [KUBECONFIG, CONTEXT, *([NAMESPACE] if namespaced else []), *([EVERYWHERE] if everywhere else [])]
        return functools.reduce(lambda wrapped, option: option(wrapped), options, with_access)

    return decorate


def ask(access: Access, work: Callable[[KubeApi], Awaitable[T]]) -> T:
    """What the work brings back from the cluster."""

    async def connected() -> T:
        api = await KubeApi.connect(
            kubeconfig=access.kubeconfig, context=access.context, user_agent="stokehold-cli", request_timeout=15
        )
        try:
            return await work(api)
        finally:
            await api.close()

    with told():
        return asyncio.run(connected())


@contextmanager
def told(what: str = "", missing: str = "") -> Iterator[None]:
    """Turn the API server's refusals into words for a person: `what` was tried, `missing` if there is no such thing."""
    try:
        yield
    except ConnectError as error:
        raise click.ClickException(f"{error}. Set KUBECONFIG, --kubeconfig or --context.") from error
    except NotFoundError as error:
        if is_missing_kind(error):
            raise click.ClickException(
                "the cluster does not serve the kinds of stokehold.dev: its CRDs are not installed. Ask whoever runs"
                " the cluster to install Stokehold's Helm chart."
            ) from error
        raise click.ClickException(missing or error.message) from error
    except ForbiddenError as error:
        if error.status == 401:
            raise click.ClickException("the API server does not accept your credentials: log in again") from error
        raise click.ClickException(f"you may not {what or 'do this'}: {error.message}") from error
    except InvalidError as error:
        raise click.ClickException(f"the API server refuses to {what or 'do this'}: {error.message}") from error
    except ApiError as error:
        raise click.ClickException(f"the API server did not answer ({error.message or error}); try again") from error


def is_missing_kind(error: NotFoundError) -> bool:
    """Whether the server knows no such kind at all, in place of no such object."""
    return error.reason != "NotFound" or "could not find the requested resource" in error.message


def now() -> datetime:
    """The time, for "n seconds ago"."""
    return datetime.now(UTC)  # noqa: TID251 - a command that a person runs has no other clock
