"""Decode objects of the API server one by one, and sanitize each object.

1. msgspec decodes the object strictly into its type of `runway.kube.objects`.
2. If that fails, the object is decoded field by field, without the invalid fields.
3. Texts, times, durations and quantities are limited to the bounds below, so no other module has to.
4. Equal strings and specs are interned, which halves the memory of a job, and an equal spec is limited once. Decoded
   objects are frozen, so sharing their parts is safe.

`metadata.unreadable` names the fields that were left out. Such an object is called undecodable: it counts for quota by
its valid fields, and an invalid quantity counts as more than any quota.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from operator import is_not
from sys import intern
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import replace

from runway.kube import objects as k8s
from runway.quantity import MAX_LENGTH, ceil_units
from runway.text import escape, one_line

MAX_WORD: Final = 256
"""Characters of a type, status, reason or name; those of Kubernetes are far shorter."""
MAX_MESSAGE: Final = 4096
"""Characters of a message; a longer one loses its middle. The kubelet's log tail has at most 4096 bytes."""
MAX_PARTS: Final = 32
"""Conditions and container statuses of one object, and tolerations and taints."""
MAX_INT32: Final = 2**31 - 1
MAX_SALVAGED: Final = 256
"""Elements of an invalid list that are decoded one by one; each takes about 30 us."""
MAX_DEPTH: Final = 100
"""Nesting depth. The API server allows 10,000 levels; msgspec fails at about 900, depending on the Python stack."""
MAX_FAULTS: Final = 8
"""Undecodable fields of one object that are named."""
MORE_THAN_ANY_QUOTA: Final = "1E"
"""Replaces an invalid quantity: no job of the tenant is admitted until the object is repaired."""
UNREADABLE_CONTAINER: Final = "unreadable"
"""The name of the container that replaces undecodable requests."""
MAX_INTERNED_SPECS: Final = 10_000
"""Beyond it the table starts empty again; only sharing is lost."""
MAX_INTERNED_SPEC_BYTES: Final = 2048
MAX_INTERNED_TEXT: Final = 512
"""Characters of an interned text; longer ones, such as records, are unique."""

READ_CONDITIONS: Final = frozenset(
    {
        "Complete", "DisruptionTarget", "Failed", "FailureTarget", "PodReadyToStartContainers", "PodScheduled", "Ready",
        "SuccessCriteriaMet", "Suspended",
        # Of nodes, by the monitors of GPU health.
        "AcceleratedHardwareReady", "GpuDriverWatch", "GpuInforomWatch", "GpuMcuWatch", "GpuMemWatch", "GpuNvlinkWatch",
        "GpuPcieWatch", "GpuPmuWatch", "GpuPowerWatch", "GpuSmWatch", "GpuThermalWatch", "NVSwitchDown",
        "NVSwitchFatalError", "SysLogsGPUFallenOff", "SysLogsSXIDError", "SysLogsXIDError",
    }
)  # fmt: skip
"""The condition types that are read; they take precedence if there are too many conditions."""

_WITHOUT_REQUESTS: Final = frozenset(
    {
        "activeDeadlineSeconds",
        "backoffLimit",
        "completions",
        "nodeName",
        "nodeSelector",
        "terminationGracePeriodSeconds",
        "tolerations",
    }
)
_SPECS: Final = (k8s.JobSpec, k8s.PodSpec)
_VOLUMES: Final = "spec.template.spec.volumes"
_RESOURCES: Final = ("cpu", "memory", k8s.DISK_RESOURCE, k8s.GPU_RESOURCE)
_KUBERNETES_LABELS: Final = frozenset({k8s.LABEL_CONTROLLER, k8s.LABEL_JOB_NAME})
_CUT: Final = " ... "
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}]', re.DOTALL)
"""A JSON string, or a bracket outside of one."""
_UNREADABLE: Final = msgspec.UNSET
IsKnown = Callable[[k8s.Metadata], bool]
"""Called with the metadata of a watch event's object; returns whether this version needs no decoding."""
_Part = TypeVar("_Part", bound=msgspec.Struct)
_ObjectOrLease = TypeVar("_ObjectOrLease", k8s.Job, k8s.Pod, k8s.Event, k8s.Node, k8s.Lease)


class _RawList(msgspec.Struct, frozen=True):
    metadata: k8s.ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class _RawWatchEvent(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: msgspec.Raw


_decoder = cache(msgspec.json.Decoder)
"""The decoder of a type."""


def decode_list(
    body: bytes, type_: type[k8s.Object], metadata: k8s.MetadataFilter | None = None
) -> k8s.ObjectList[k8s.Object]:
    """Decode one page of a list. Raises msgspec.DecodeError for an invalid list, but not for an invalid object."""
    listing: _RawList = _decode(body, _RawList)
    if not is_version(listing.metadata.resource_version):
        raise msgspec.DecodeError("the list has no resource version")
    items = tuple(decode_object(bytes(raw), type_, metadata) for raw in listing.items or ())
    return k8s.ObjectList(metadata=listing.metadata, items=items)


def decode_watch_event(
    line: bytes,
    type_: type[k8s.Object],
    metadata: k8s.MetadataFilter | None = None,
    is_known: IsKnown = lambda _: False,
) -> k8s.WatchEvent[k8s.Object]:
    """Decode one event of a watch. Raises msgspec.DecodeError for an invalid event, but not for an invalid object.

    Returns a bookmark instead of an object whose version is known.
    """
    try:
        event: k8s.WatchEvent[k8s.Object] = _decode(line, k8s.WatchEvent[type_])  # type: ignore[valid-type]
    except (msgspec.DecodeError, RecursionError):
        raw: _RawWatchEvent = _decode(line, _RawWatchEvent)
        return k8s.WatchEvent(type=raw.type, object=decode_object(bytes(raw.object), type_, metadata))
    version = event.object.metadata.resource_version
    if event.type in ("ADDED", "MODIFIED") and is_known(event.object.metadata):
        return k8s.WatchEvent("BOOKMARK", type_(metadata=k8s.Metadata(resource_version=version)))
    return k8s.WatchEvent(event.type, _sanitize(event.object, [], metadata))


def decode_object(raw: bytes, type_: type[k8s.Object], metadata: k8s.MetadataFilter | None = None) -> k8s.Object:
    """Decode and sanitize one object. An object with invalid metadata has no name."""
    item, faults = _decode_leniently(raw, type_)
    return _sanitize(item, faults, metadata)


def decode_lease(raw: bytes) -> k8s.Lease:
    """Decode the Lease, with all labels and annotations, because they are written back."""
    return _decode_leniently(raw, k8s.Lease)[0]


def is_version(text: str) -> bool:
    """Return whether this is a resource version that is comparable as a number."""
    return text.isascii() and text.isdecimal() and len(text) <= 20


def _decode(raw: bytes, type_: Any) -> Any:
    """Decode JSON of any nesting depth. Raises msgspec.DecodeError."""
    try:
        try:
            return _decoder(type_).decode(raw)
        except RecursionError:
            return _decoder(type_).decode(shallow(raw))
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"the JSON is not UTF-8 (byte {error.start} of a text)") from None


def shallow(raw: bytes) -> bytes:
    """Replace everything nested deeper than `MAX_DEPTH` by null: half a second for 16 MiB."""
    pieces: list[bytes] = []
    kept_from, depth = 0, 0
    for token in _TOKEN.finditer(raw):
        bracket = token[0]
        if bracket in (b"{", b"["):
            depth += 1
            if depth == MAX_DEPTH + 1:
                pieces += (raw[kept_from : token.start()], b"null")
        elif bracket in (b"}", b"]"):
            if depth == MAX_DEPTH + 1:
                kept_from = token.end()
            depth -= 1
    # Unclosed brackets are invalid JSON: the decoder reports the truncated text.
    return b"".join(pieces) if depth > MAX_DEPTH else b"".join((*pieces, raw[kept_from:]))


def _decode_leniently(raw: bytes, type_: type[_ObjectOrLease]) -> tuple[_ObjectOrLease, list[str]]:
    """Decode the valid fields of an object; return the paths of the others, too."""
    try:
        return _decode(raw, type_), []
    except (msgspec.DecodeError, RecursionError):
        pass
    faults: list[str] = []
    try:
        value = _decode(raw, Any)
    except (msgspec.DecodeError, RecursionError):
        value = None
    item = _salvage(value, type_, "", faults)
    return (type_(metadata=k8s.Metadata()), ["object"]) if item is _UNREADABLE else (item, faults)


def _salvage(value: Any, type_: Any, path: str, faults: list[str]) -> Any:
    """Convert a value without its invalid parts; return `_UNREADABLE` if no part is valid."""
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError):
        pass
    inner = _without_none(type_)
    found: Any = _UNREADABLE
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
        found = _salvage_struct(value, inner, path, faults)
    elif get_origin(inner) is tuple and isinstance(value, list):
        if len(value) > MAX_SALVAGED:
            faults.append(path)
        known = enumerate(value[:MAX_SALVAGED])
        parts = [_salvage(part, get_args(inner)[0], f"{path}[{at}]", faults) for at, part in known]
        found = tuple(part for part in parts if part is not _UNREADABLE)
    elif get_origin(inner) is dict and isinstance(value, dict):
        found = {name: part for name, part in value.items() if isinstance(name, str) and isinstance(part, str)}
        faults.append(path)
    if found is _UNREADABLE:
        faults.append(path or "object")
    return found


def _salvage_struct(value: dict[str, Any], type_: type[_Part], path: str, faults: list[str]) -> Any:
    """Convert field by field. An invalid required field makes the whole invalid; null counts as absent."""
    hints = _hints(type_)
    known = {}
    for field in msgspec.structs.fields(type_):
        sent = value.get(field.encode_name)
        if sent is None:
            continue
        found = _salvage(sent, hints[field.name], f"{path}.{field.encode_name}".lstrip("."), faults)
        if found is not _UNREADABLE:
            known[field.name] = found
    try:
        return type_(**known)
    except TypeError:
        return _UNREADABLE


@cache
def _hints(type_: type[msgspec.Struct]) -> Mapping[str, Any]:
    return get_type_hints(type_, include_extras=True)


def _without_none(type_: Any) -> Any:
    """Return `X` of `X | None`."""
    if get_origin(type_) in (Union, UnionType):
        return next((part for part in get_args(type_) if part is not type(None)), type_)
    return type_


def _sanitize(item: k8s.Object, faults: list[str], keep: k8s.MetadataFilter | None) -> k8s.Object:
    """Limit all fields and intern equal parts; add the paths of invalid fields to `faults`."""
    requests_lost = any(map(_may_hide_requests, faults))
    clean = _limit(item, "", faults)
    if requests_lost and isinstance(clean, k8s.Job | k8s.Pod):
        clean = _with_unlimited_requests(clean)  # type: ignore[assignment]
    if isinstance(clean, k8s.Node):
        clean = _limit_allocatable(clean, faults)  # type: ignore[assignment]
    metadata = _filter_metadata(clean.metadata, faults, type(item), keep)
    if faults:
        named = [fault[:MAX_WORD] for fault in dict.fromkeys(faults)][:MAX_FAULTS]
        metadata = replace(metadata, unreadable=tuple(named))
    if isinstance(clean, k8s.Job | k8s.Pod):
        return replace(clean, metadata=metadata, status=_intern_status(clean.status))
    return clean if metadata is clean.metadata else replace(clean, metadata=metadata)


def _may_hide_requests(fault: str) -> bool:
    if not fault.startswith("spec") or fault.startswith(_VOLUMES):
        return False
    return fault.rpartition(".")[2].partition("[")[0] not in _WITHOUT_REQUESTS


def _with_unlimited_requests(item: k8s.Job | k8s.Pod) -> k8s.Job | k8s.Pod:
    """Add a container that requests more than any quota, because the real requests are unknown."""
    container = k8s.Container(
        UNREADABLE_CONTAINER, k8s.ContainerResources(dict.fromkeys(_RESOURCES, MORE_THAN_ANY_QUOTA))
    )
    if isinstance(item, k8s.Pod):
        return replace(item, spec=replace(item.spec, containers=(*(item.spec.containers or ()), container)))
    spec = item.spec.template.spec
    template = replace(item.spec.template, spec=replace(spec, containers=(*(spec.containers or ()), container)))
    return replace(item, spec=replace(item.spec, template=template, parallelism=1, suspend=False))


def _filter_metadata(
    metadata: k8s.Metadata, faults: list[str], type_: type, keep: k8s.MetadataFilter | None
) -> k8s.Metadata:
    """Drop the annotations and labels that nobody reads; without a valid version drop all metadata."""
    if not is_version(metadata.resource_version):
        faults.append("metadata.resourceVersion")
        return k8s.Metadata(unreadable=("metadata.resourceVersion",))
    annotations, labels = metadata.annotations, metadata.labels
    if type_ is not k8s.Job:
        annotations = {}
    elif annotations and keep is not None:
        limits = keep.annotations.items()
        annotations = {name: annotations[name][:limit] for name, limit in limits if name in annotations}
    if labels and type_ is not k8s.Node:
        kept = labels.keys() if keep is None else keep.labels | _KUBERNETES_LABELS
        labels = {name: _word(text) for name, text in labels.items() if name in kept}
    return replace(
        metadata,
        # Pods repeat the name and uid of their Job in labels.
        name=intern(metadata.name),
        uid=intern(metadata.uid),
        namespace=intern(metadata.namespace),
        labels=_intern_texts(labels),
        annotations=_intern_texts(annotations),
    )


def _limit(part: _Part, path: str, faults: list[str]) -> _Part:
    changes: dict[str, Any] = {}
    for field, encoded, limit in _rules(type(part)):
        value = getattr(part, field)
        if not value:
            continue
        if limit is not None:
            clean = limit(value)
            if clean is _UNREADABLE:
                faults.append(f"{path}.{encoded}".lstrip("."))
                clean = None
        elif type(value) in _SPECS:
            clean = _limit_spec(value, f"{path}.{encoded}", faults)
        elif isinstance(value, tuple):
            clean = _limit_list(value, f"{path}.{encoded}", faults)
        elif isinstance(value, k8s.ResourceRequirements):
            clean = _limit_requests(value, f"{path}.{encoded}.requests".lstrip("."), faults)
        else:
            clean = _limit(value, f"{path}.{encoded}", faults)
        if clean is not value:
            changes[field] = clean
    return replace(part, **changes) if changes else part


_interned_specs: dict[tuple[type, bytes], k8s.JobSpec | k8s.PodSpec] = {}


def _limit_spec(spec: k8s.JobSpec | k8s.PodSpec, path: str, faults: list[str]) -> k8s.JobSpec | k8s.PodSpec:
    """Limit a spec. All equal specs share the first result, unless the spec is large or has invalid fields."""
    encoded = msgspec.json.encode(spec)
    known = _interned_specs.get((type(spec), encoded))
    if known is not None:
        return known
    faults_before = len(faults)
    limited = _limit(spec, path, faults)
    if len(encoded) <= MAX_INTERNED_SPEC_BYTES and len(faults) == faults_before:
        if len(_interned_specs) >= MAX_INTERNED_SPECS:
            _interned_specs.clear()
        _interned_specs[type(spec), encoded] = limited
    return limited


@cache
def _rules(type_: type[msgspec.Struct]) -> tuple[tuple[str, str, Callable[[Any], Any] | None], ...]:
    """Return the fields to limit: name, name in JSON, and the function for a value; None for nested structs."""
    rules: list[tuple[str, str, Callable[[Any], Any] | None]] = []
    hints = _hints(type_)
    for field in msgspec.structs.fields(type_):
        hint = _without_none(hints[field.name])
        if get_origin(hint) is Annotated:
            inner, mark = get_args(hint)[:2]
            rules.append((field.name, field.encode_name, _time if inner is datetime else _LIMITS[mark]))
        elif issubclass(get_args(hint)[0] if get_origin(hint) is tuple else get_origin(hint) or hint, msgspec.Struct):
            rules.append((field.name, field.encode_name, None))
    return tuple(rules)


def _limit_list(parts: tuple[Any, ...], path: str, faults: list[str]) -> tuple[Any, ...]:
    if len(parts) <= MAX_PARTS and isinstance(parts[0], k8s.Condition) and all(map(_is_plain, parts)):
        return parts
    kept = parts if len(parts) <= MAX_PARTS else _most_important(parts)
    clean = tuple(_limit(part, f"{path}[{at}]", faults) for at, part in enumerate(kept))
    return clean if len(clean) != len(parts) or any(map(is_not, clean, parts)) else parts


def _is_plain(condition: k8s.Condition) -> bool:
    """Return whether a condition needs no change. This saves a third of the time of a pod."""
    time, message = condition.last_transition_time, condition.message or ""
    text = condition.type + condition.status + (condition.reason or "") + message
    return len(text) <= MAX_WORD and text.isprintable() and (time is None or k8s.is_possible_year(time.year))


def _most_important(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Select at most `MAX_PARTS`. All containers stay: their requests count for quota."""
    if isinstance(parts[0], k8s.Container):
        return parts
    if isinstance(parts[0], k8s.ContainerStatus):
        return tuple(sorted(parts, key=lambda status: status.name != k8s.CONTAINER)[:MAX_PARTS])
    if isinstance(parts[0], k8s.Condition):
        # One of each type: of several the first that is True, as in `Job.condition`.
        in_order = sorted(parts, key=lambda condition: condition.status != "True")
        by_type = {condition.type: condition for condition in reversed(in_order)}
        return tuple(sorted(by_type.values(), key=lambda one: one.type not in READ_CONDITIONS)[:MAX_PARTS])
    return parts[:MAX_PARTS]


def _limit_requests(resources: k8s.ResourceRequirements, path: str, faults: list[str]) -> k8s.ResourceRequirements:
    """Keep the requests that are read; replace an invalid one by more than any quota.

    A container requests its limits where it has no request. The API server writes that into pods, but not into Jobs:
    https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/apis/core/v1/defaults.go (SetDefaults_Pod)
    """
    limits = resources.limits if isinstance(resources, k8s.ContainerResources) else {}
    requests = limits | resources.requests
    if not limits and all(name in _RESOURCES and _is_quantity(text) for name, text in requests.items()):
        return resources
    invalid = [name for name in _RESOURCES if name in requests and not _is_quantity(requests[name])]
    faults.extend(f"{path}.{name}" for name in invalid)
    known = {name: requests[name] for name in _RESOURCES if name in requests}
    known |= dict.fromkeys(invalid, MORE_THAN_ANY_QUOTA)
    return replace(resources, requests=known, **({"limits": {}} if limits else {}))


def _limit_allocatable(node: k8s.Node, faults: list[str]) -> k8s.Node:
    known = {name: text for name, text in node.status.allocatable.items() if name in _RESOURCES}
    valid = {name: text for name, text in known.items() if _is_quantity(text)}
    faults.extend(f"status.allocatable.{name}" for name in known if name not in valid)
    return replace(node, status=replace(node.status, allocatable=valid))


def _is_quantity(text: str) -> bool:
    return len(text) <= MAX_LENGTH and _parses(text)


@lru_cache(maxsize=1024)
def _parses(text: str) -> bool:
    try:
        ceil_units(text)
    except ValueError:
        return False
    return True


def _time(time: datetime) -> Any:
    return time if k8s.is_possible_year(time.year) else _UNREADABLE


def _word(text: str) -> str:
    return text if len(text) <= MAX_WORD and text.isprintable() else one_line(text, MAX_WORD)


def _message(text: str) -> str:
    """Escape a message, keep its lines, and cut the middle of a long one: both ends carry the cause."""
    text = _without_middle(text)
    return text if text.isprintable() else _without_middle(escape(text, keep="\n\t"))


def _without_middle(text: str) -> str:
    half = MAX_MESSAGE // 2
    return text if len(text) <= MAX_MESSAGE else text[:half] + _CUT + text[-half:]


def _log_tail(text: str) -> str:
    """Cut the start. The text is escaped and redacted later, when an excerpt is made of it."""
    return text if len(text) <= MAX_MESSAGE else text[-MAX_MESSAGE:]


_LIMITS: Final[Mapping[k8s.Bound, Callable[[Any], Any]]] = {
    k8s.Bound.WORD: _word,
    k8s.Bound.MESSAGE: _message,
    k8s.Bound.LOG_TAIL: _log_tail,
    k8s.Bound.INT32: lambda number: max(-MAX_INT32, min(number, MAX_INT32)),
    k8s.Bound.SECONDS: lambda seconds: max(0, min(seconds, k8s.MAX_SECONDS)),
}


def _intern_status(status: k8s.JobStatus | k8s.PodStatus) -> k8s.JobStatus | k8s.PodStatus:
    changes: dict[str, Any] = {}
    if status.conditions:
        changes["conditions"] = tuple(map(_intern_condition, status.conditions))
    if isinstance(status, k8s.PodStatus):
        changes["container_statuses"] = tuple(map(_intern_image, status.container_statuses))
        changes["init_container_statuses"] = tuple(map(_intern_image, status.init_container_statuses))
    return replace(status, **changes) if changes else status


def _intern_texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {intern(name): intern(text) if len(text) <= MAX_INTERNED_TEXT else text for name, text in texts.items()}


def _intern_condition(condition: k8s.Condition) -> k8s.Condition:
    return replace(
        condition,
        type=intern(condition.type),
        status=intern(condition.status),
        reason=condition.reason and intern(condition.reason),
        message=condition.message and intern(condition.message),
    )


def _intern_image(status: k8s.ContainerStatus) -> k8s.ContainerStatus:
    """Intern the image, which is long and the same for many pods."""
    return replace(status, image_id=intern(status.image_id)) if status.image_id else status
