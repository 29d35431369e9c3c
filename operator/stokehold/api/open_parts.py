"""Pieces of Kubernetes' own objects inside ours: a few members are judged, the others are handed on as they are."""

from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from stokehold.api.base import Part


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A member that a template must leave alone, and why."""

    name: str
    type: str
    why: str

    @property
    def refusal(self) -> str:
        """What is said to the user."""
        return f"{self.name} is not allowed here: {self.why}"

    def schema(self) -> JsonSchemaValue:
        """Return the member as CEL must know it to see that it is there."""
        anything: JsonSchemaValue = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        shapes: dict[str, JsonSchemaValue] = {
            "object": anything,
            "array": {"type": "array", "items": anything},
            "strings": {"type": "array", "items": {"type": "string"}},
        }
        known = shapes.get(self.type, {"type": self.type})
        return {"description": f"Not allowed: {self.why}.", **known}

    def rule(self) -> JsonSchemaValue:
        """Return the entry of `x-kubernetes-validations` that refuses it."""
        return {"rule": f"!has(self.{self.name})", "message": self.refusal, "fieldPath": f".{self.name}"}


class OpenPart(Part):
    """A piece of a pod of which only some members are known to us; the others are Kubernetes' own business."""

    model_config = ConfigDict(extra="allow")

    FORBIDDEN: ClassVar[tuple[Forbidden, ...]] = ()

    @model_validator(mode="after")
    def _leave_alone_what_is_forbidden(self) -> Self:
        given = self.model_extra or {}
        for member in self.FORBIDDEN:
            if given.get(member.name) is not None:
                raise ValueError(member.refusal)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = super().__get_pydantic_json_schema__(schema, handler)
        shown.pop("additionalProperties", None)
        shown["x-kubernetes-preserve-unknown-fields"] = True
        shown["properties"] = {
            **{member.name: member.schema() for member in cls.FORBIDDEN},
            **shown.get("properties", {}),
        }
        if cls.FORBIDDEN:
            rules = [member.rule() for member in cls.FORBIDDEN]
            shown["x-kubernetes-validations"] = [*rules, *shown.get("x-kubernetes-validations", [])]
        return shown
