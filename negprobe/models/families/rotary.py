"""What the families with rotary positions share: the fields of the rotation, their checks and settings."""

from typing import Any

from negprobe.models.config_fields import Field, bad_field, number, one_of, whole

_BASE = number(1e-3, 1e30)

_ENTRIES: dict[str, Field] = {
    "rope_type": one_of("default"),
    "type": one_of("default"),
    "rope_theta": _BASE,
    "partial_rotary_factor": one_of(1, 1.0),
}


def rotation(value: object, field: str, name: str) -> dict[str, Any] | None:
    """The parameters of a plain rotation of whole heads, or None for those of the class."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= _ENTRIES.keys():
        raise bad_field(field, value, f"null or a table with the entries {', '.join(_ENTRIES)} alone", name)
    # A copy, because transformers changes the table that it is given.
    return {key: _ENTRIES[key](entry, f"{field}.{key}", name) for key, entry in value.items()}


ROTARY_FIELDS: dict[str, Field] = {
    "rope_parameters": rotation,
    # As earlier versions of transformers wrote it.
    "rope_scaling": rotation,
    "rope_theta": _BASE,
    "partial_rotary_factor": one_of(None, 1, 1.0),
    "head_dim": whole(1, 10**6),
}
"""The fields of the rotation, and the width of a head."""


def rotary_settings(hf_config: Any) -> dict[str, Any]:
    """The fields of a `HookedEncoderConfig` that describe heads and rotary positions."""
    return {
        "d_head": getattr(hf_config, "head_dim", None) or hf_config.hidden_size // hf_config.num_attention_heads,
        "embeds_positions": False,
        "positions": "rotary",
        "rotary_bases": (float(hf_config.rope_parameters["rope_theta"]),) * hf_config.num_hidden_layers,
    }
