"""What all kinds are made of: frozen models, rules that we and the API server both check, metadata.

Nothing here belongs to one kind, and nothing here knows how a manifest of a CRD looks (crd.py does).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from stokehold.api.docs import field_docs
from stokehold.api.names import API_VERSION, NAME_MAX_LENGTH
from stokehold.api.times import Timestamp

T = TypeVar("T")
Place = tuple[int | str, ...]

_STATUS_DEPTH = 8  # no status nests deeper, and each reading drops at least one level of what is strange

# Lax pydantic would take "4" for 4 and 1 for true; the API server does not.
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]

# On a field with a default: an explicit null is an error. The API server would quietly put the default there.
REFUSE_NULL = Field(json_schema_extra={"nullable": True})

# An object of Kubernetes that we hand on as it is.
RawObject = Annotated[
    dict[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence that holds for a value: as CEL for the API server, as a function for us.

    Stands in `Part.RULES` (then it sees the model), or in `Annotated[...]` (then it sees the value).
    """

    message: str
    cel: str
    holds: Callable[[Any], bool] | None = None
    """None where only the server can check: transitions, and forms that our own parser enforces."""
    field: str | None = None
    """The member that the server names in its message, as `.minNodes`; else the object itself."""
    optional_old_self: bool = False

    def check(self, value: T) -> T:
        """Return the value, or raise with the sentence that it breaks."""
        if self.holds is not None and not self.holds(value):
            raise ValueError(self.message)
        return value

    def manifest(self) -> dict[str, JsonValue]:
        """Return the entry of `x-kubernetes-validations`."""
        entry: dict[str, JsonValue] = {"rule": self.cel, "message": self.message}
        if self.field is not None:
            entry["fieldPath"] = self.field
        if self.optional_old_self:
            entry["optionalOldSelf"] = True
        return entry

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return add_rules(handler(schema), (self,))


def add_rules(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    """Return the schema with the rules after those that it has."""
    if not rules:
        return schema
    present = schema.get("x-kubernetes-validations", [])
    return {**schema, "x-kubernetes-validations": [*present, *(rule.manifest() for rule in rules)]}


class Part(BaseModel):
    """A frozen piece of a manifest: snake_case here, camelCase in the manifest."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.RULES:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = handler.resolve_ref_schema(handler(schema))
        for name, text in field_docs(cls).items():
            field = cls.model_fields[name].alias or name
            shown["properties"][field] = {**shown["properties"][field], "description": text}
        shown.update(add_rules(shown, cls.RULES))
        return shown

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the manifest: exactly the fields that were given, as they were written."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


class ObjectMeta(Part):
    """The metadata of Kubernetes, as far as any server writes it."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[RawObject, ...] = ()
    managed_fields: tuple[RawObject, ...] = ()
    self_link: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; wide ones show with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its three values."""

    spec_replicas: str
    status_replicas: str
    selector: str


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is served: its names, its scope, what `kubectl get` shows."""

    plural: str
    short_name: str
    namespaced: bool
    columns: tuple[Column, ...]
    selectable_fields: tuple[str, ...] = ()
    scale: Scale | None = None
    name_max_length: int | None = NAME_MAX_LENGTH


class Kind(Part):
    """The root of a manifest. Each kind adds `kind`, `spec` and `status`."""

    RESOURCE: ClassVar[Resource]

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    @classmethod
    def parse_strict(cls, manifest: Mapping[str, object]) -> Self:
        """Return the object that a user wants to write; unknown fields are errors."""
        return cls.model_validate(manifest)

    @classmethod
    def read(cls, stored: Mapping[str, object]) -> Self:
        """Return a stored object without the fields that this version does not know.

        What cannot be understood in the status counts as absent, the smallest entry around it: another version wrote
        it, and it must not hide the object. An invalid spec raises ValidationError.
        """
        for _ in range(_STATUS_DEPTH):
            try:
                return cls.model_validate(stored, extra="ignore")
            except ValidationError as error:
                strange = {place for place in map(_place, error.errors()) if place[:1] == ("status",)}
                if not strange:
                    raise
                stored = _without(stored, strange)
        return cls.model_validate({name: stored[name] for name in stored if name != "status"}, extra="ignore")


def _place(error: ErrorDetails) -> Place:
    """Return where the value stands that is in the way: of a member that is missing, the object without it."""
    return error["loc"][:-1] if error["type"] == "missing" else error["loc"]


def _without(stored: Mapping[str, object], places: Collection[Place]) -> dict[str, object]:
    def pruned(value: object, at: Place) -> object:
        if isinstance(value, Mapping):
            return {key: pruned(inner, (*at, key)) for key, inner in value.items() if (*at, key) not in places}
        if isinstance(value, list | tuple):
            return [pruned(inner, (*at, index)) for index, inner in enumerate(value) if (*at, index) not in places]
        return value

    return {key: pruned(value, (key,)) for key, value in stored.items() if (key,) not in places}
