"""JSON schemas beside the models, for editors and other languages: `python -m schemas.json_schema` rewrites them."""

import json
from pathlib import Path

from pydantic import BaseModel

from schemas.generation import Manifest
from schemas.recipe import Recipe

__all__ = ["MODELS", "json_schema"]

MODELS: dict[str, type[BaseModel]] = {"recipe.schema.json": Recipe, "manifest.schema.json": Manifest}


def json_schema(name: str) -> str:
    """The text of a schema file."""
    return json.dumps(MODELS[name].model_json_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file_name in MODELS:
        (Path(__file__).parent / file_name).write_text(json_schema(file_name), encoding="utf-8")
