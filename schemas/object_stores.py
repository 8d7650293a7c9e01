"""Object stores and web servers through obstore. Used through `schemas/storage.py`.

Credentials and endpoints come from the variables that each cloud's own tools read. A store that has never answered
is given up after some 20 seconds, so that a wrong endpoint is told at once; one that has answered is tried for two
minutes, so that a busy moment of a bucket does not end a long run.
"""

import configparser
import errno
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

__all__ = ["Refused", "StorageError", "check_uri", "delete", "get", "get_range", "head", "list_objects", "put"]

T = TypeVar("T")

MODIFIED = "modified:"
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
SCHEMES = ("s3", "gs", "az", "http", "https")
VARIABLES = ("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR_HOST")

# What each store answers to a wrong key; none of them agree on the status that goes with it.
DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AuthenticationFailed"
    r"|AuthorizationFailure|XAdminUserNotFound|403 Forbidden|401 Unauthorized"
)
NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
# Without any, a store asks the machine that it may be running on in that cloud.
NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google|Account must be specified", re.IGNORECASE)
UNREACHED = re.compile(r"error sending request|tcp connect|dns error|timed out|connection refused", re.IGNORECASE)
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys) or AWS_PROFILE, "
    "or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN), "
    "or AZURE_SKIP_SIGNATURE=true for a public container",
    "http": "the server asks for a login, which is not supported: download the file and name the local copy",
}
ENDPOINTS = {
    "s3": "is AWS_ENDPOINT_URL right (for Amazon's own, unset it and set AWS_REGION), and is there a network?",
    "gs": "is STORAGE_EMULATOR_HOST unset or right, and is there a network?",
    "az": "is AZURE_STORAGE_ENDPOINT unset or right, and is there a network?",
    "http": "is the address right, and is there a network?",
}


class StorageError(OSError):
    """Storage refused: the message names the URI, the cause and the cure."""


class Refused(StorageError):
    """The store has answered, and will not answer otherwise when it is asked again."""


@dataclass
class Store:
    """One bucket's client in this process, with short and with long patience."""

    quick: Any
    patient: Any
    answered: bool = False

    def call(self, function: Callable[[Any], T]) -> T:
        try:
            result = function(self.patient if self.answered else self.quick)
        except (FileNotFoundError, AlreadyExistsError, PreconditionError):
            self.answered = True
            raise
        self.answered = True
        return result


def check_uri(uri: str, writes: bool = False) -> None:
    """Raise ValueError for a URI that no store can have or, if it `writes`, none can take."""
    if _parts(uri)[0] == "http" and writes:
        raise ValueError(f"{uri}: a web server is only read from: write to a folder or a bucket")


def head(uri: str) -> tuple[int, str]:
    """Size and tag."""
    meta = _call(uri, lambda store, key: obstore.head(store, key))
    return meta["size"], _tag(meta)


def get(uri: str) -> bytes:
    return _call(uri, lambda store, key: obstore.get(store, key).bytes().to_bytes())


def get_range(uri: str, start: int, length: int, tag: str | None = None) -> bytes:
    """At most `length` (> 0) bytes from `start`; with a `tag`, only of that version of the object."""
    options: dict[str, Any] = {"range": (start, start + length)}
    # A weak ETag or a date never matches; only a strong one can be asked for.
    if tag and not tag.startswith(("W/", MODIFIED)):
        options["if_match"] = f'"{tag}"'

    def fetch(store: Any, key: str) -> bytes:
        try:
            return obstore.get(store, key, options=options).bytes().to_bytes()  # type: ignore[arg-type]
        except BaseError as error:
            if "416 Range Not Satisfiable" in str(error):
                return b""
            raise

    return _call(uri, fetch)


def list_objects(prefix: str) -> Iterator[tuple[str, int, str]]:
    """(URI, size, ETag) of every object below a prefix, which ends where a folder name ends."""
    scheme, bucket, key = _parts(prefix)
    if scheme == "http":
        raise StorageError(
            f"{prefix}: a web server does not list its files: name them, as inputs: [@FILE] with one path a line"
        )

    def collect(store: Any, folder: str) -> list[tuple[str, int, str]]:
        found = []
        for page in obstore.list(store, folder or None, chunk_size=1000):
            found += [(meta["path"], meta["size"], _tag(meta)) for meta in page]
        return found

    root = f"{prefix.partition('://')[0]}://{bucket}/"
    for path, size, tag in _call(prefix, collect, key.rstrip("/")):
        yield root + path, size, tag


def put(uri: str, data: bytes | Path, create_only: bool) -> None:
    """Write an object; with `create_only` FileExistsError where there is one (If-None-Match)."""
    check_uri(uri, writes=True)

    def send(store: Any, key: str) -> None:
        if create_only:
            content = data.read_bytes() if isinstance(data, Path) else data
            obstore.put(store, key, content, mode="create", use_multipart=False)
        else:
            obstore.put(store, key, data, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    _call(uri, send)


def delete(uri: str) -> None:
    try:
        _call(uri, lambda store, key: obstore.delete(store, key))
    except FileNotFoundError:
        return


def _tag(meta: Any) -> str:
    """The ETag without its quotes, which some listings leave out; where there is none, Last-Modified."""
    etag = meta["e_tag"]
    return etag.strip('"') if etag else MODIFIED + meta["last_modified"].isoformat()


def _call(uri: str, function: Callable[[Any, str], T], key: str | None = None) -> T:
    """Run `function(store, key)` for a URI, with errors as one line each."""
    scheme, bucket, path = _parts(uri)
    try:
        store = _store(scheme, bucket)
        return store.call(lambda client: function(client, path if key is None else key))
    except AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "there already, and written only once", uri) from None
    except FileNotFoundError as error:
        text = str(error)
        if NO_BUCKET.search(text) or DENIED.search(text):
            raise StorageError(_message(uri, scheme, bucket, error)) from None
        raise FileNotFoundError(errno.ENOENT, "no such object", uri) from None
    except (NotSupportedError, PermissionDeniedError, UnauthenticatedError) as error:
        raise Refused(_message(uri, scheme, bucket, error)) from None
    except (BaseError, ValueError) as error:
        raise StorageError(_message(uri, scheme, bucket, error)) from None


def _parts(uri: str) -> tuple[str, str, str]:
    """(store's kind, bucket, key). For the web the whole address is the bucket: it may hold a query or escapes.

    Raises ValueError for what is no address of a store: a wrong configuration, not a store that fails.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"{uri}: unknown scheme {scheme}://: use a path, {', '.join(s + '://' for s in SCHEMES)}")
    if scheme in ("http", "https"):
        return "http", uri, ""
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ValueError(f"{uri}: no bucket: write {scheme}://BUCKET/NAME")
    return scheme, bucket, key


def _message(uri: str, scheme: str, bucket: str, error: Exception) -> str:
    """The one line for an error of obstore's, whose own text is a page."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    cause = code[1] if code else " ".join(text.split())[-200:]
    if isinstance(error, PreconditionError):
        return f"{uri}: the file was replaced while it was read: run again"
    if NO_BUCKET.search(text):
        return f"{uri}: no such bucket {bucket!r}: create it or mend the name"
    if NO_CREDENTIALS.search(text):
        return f"{uri}: no credentials found: {CREDENTIALS[scheme]}"
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or DENIED.search(text):
        return f"{uri}: access denied ({cause}): {CREDENTIALS[scheme]}"
    if UNREACHED.search(text):
        endpoint = re.search(r"https?://[^/\s]+", text.partition("Error performing")[2])
        return f"{uri}: {endpoint[0] if endpoint else 'the server'} was not reached: {ENDPOINTS[scheme]}"
    if isinstance(error, NotSupportedError) and scheme == "http":
        return f"{uri}: the server gives no byte ranges: download the file and name the local copy"
    if "region" in text:
        return f"{uri}: the bucket is in another region: set AWS_REGION to the bucket's own"
    return f"{uri}: {cause}"


_used_in: int | None = None


def _store(scheme: str, bucket: str) -> Store:
    """This process's client for a bucket; made anew when the variables that shape it change."""
    global _used_in
    if _used_in not in (None, os.getpid()):
        # obstore's threads do not survive a fork, and a request would wait for them for ever.
        raise StorageError(
            f"{scheme}://{bucket}: remote storage was used before this process was forked: "
            "start worker processes with spawn or forkserver, or use threads"
        )
    _used_in = os.getpid()
    variables = tuple(sorted(item for item in os.environ.items() if item[0].startswith(VARIABLES)))
    return _connect(scheme, bucket, variables)


@functools.lru_cache(maxsize=256)
def _connect(scheme: str, bucket: str, variables: tuple[tuple[str, str], ...]) -> Store:
    make = {"s3": _s3, "gs": _gcs, "az": _azure, "http": _http}[scheme]
    environment = dict(variables)
    return Store(make(bucket, environment, _retries(5, 15)), make(bucket, environment, _retries(10, 120)))


def _retries(number: int, seconds: float) -> Any:
    backoff = {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2}
    return {"max_retries": number, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


def _client(url: str | None) -> Any:
    """Timeouts: a connection in 5 s; an answer, or the next bytes of it, in 25 s; a whole request in 10 minutes."""
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=25),
        "timeout": timedelta(minutes=10),
    }
    return options | ({"allow_http": True} if (url or "").startswith("http://") else {})


def _s3(bucket: str, environment: dict[str, str], retries: Any) -> Any:
    """Amazon S3 and what speaks its protocol; obstore reads most AWS_ variables by itself."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    config: dict[str, Any] = {} if environment.get("AWS_ACCESS_KEY_ID") else _profile(environment)
    if endpoint:
        config["endpoint"] = endpoint
    if not environment.get("AWS_REGION") and environment.get("AWS_DEFAULT_REGION"):
        config["region"] = environment["AWS_DEFAULT_REGION"]
    return S3Store(bucket, **config, client_options=_client(endpoint), retry_config=retries)


def _profile(environment: dict[str, str]) -> dict[str, Any]:
    """Keys of the profile in the shared credentials file, which obstore does not read."""
    path = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    profile = environment.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except configparser.Error as error:
        raise StorageError(f"{path}: not a credentials file: {' '.join(str(error).split())}") from None
    if profile not in parser:
        if "AWS_PROFILE" in environment:
            raise StorageError(f"AWS_PROFILE={profile}: no such profile in {path}: add it, or set AWS_ACCESS_KEY_ID")
        return {}
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token", "region": "region"}
    return {ours: parser[profile][theirs] for theirs, ours in names.items() if theirs in parser[profile]}


def _gcs(bucket: str, environment: dict[str, str], retries: Any) -> Any:
    config: dict[str, Any] = {}
    emulator = environment.get("STORAGE_EMULATOR_HOST")
    if emulator:
        url = emulator if "://" in emulator else f"http://{emulator}"
        config = {"base_url": url.rstrip("/"), "bearer_token": "emulator"}
    return GCSStore(bucket, **config, client_options=_client(config.get("base_url")), retry_config=retries)


def _azure(container: str, environment: dict[str, str], retries: Any) -> Any:
    endpoint = environment.get("AZURE_STORAGE_ENDPOINT") or environment.get("AZURE_ENDPOINT")
    return AzureStore(container, client_options=_client(endpoint), retry_config=retries)


def _http(url: str, environment: dict[str, str], retries: Any) -> Any:
    if not urlsplit(url).hostname:
        raise StorageError(f"{url}: no host: write https://HOST/PATH")
    return HTTPStore(url, client_options=_client(url), retry_config=retries)
