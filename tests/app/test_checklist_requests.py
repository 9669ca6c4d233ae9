"""The checklist of TUS 1.0.0, end to end: what holds for every request, OPTIONS and HEAD.

The number in the name of a test is that of its line.
"""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from tests.app.stage import (
    OCTETS,
    NotingStorage,
    NotingStore,
    assert_head_refused,
    assert_refused,
    id_of,
    stage,
)
from tusserve import Action, NewUpload, Rejected, TusApp, Upload, UploadState
from tusserve.errors import StorageFull, StoreUnavailable
from tusserve.testing.client import Response, TusClient

pytestmark = pytest.mark.anyio

METHODS = ("POST", "HEAD", "PATCH", "DELETE")
NO_NUMBERS = [
    "",
    "+5",
    "-1",
    "-0",
    "1.5",
    "5_0",
    "0x5",
    "5e1",
    "5 0",
    "5,5",
    "\xb2",
    "9223372036854775808",
    "0" * 20,
]


async def any_request(client: TusClient, method: str, url: str, version: str | None = "1.0.0") -> Response:
    """A request that is right but, perhaps, for its version."""
    headers = {
        "POST": {"Upload-Length": "5"},
        "PATCH": {"Upload-Offset": "0", "Content-Type": OCTETS},
    }.get(method, {})
    body = b"hello" if method == "PATCH" else None
    return await client.request(method, url, headers={**headers, "Tus-Resumable": version}, body=body)


# ---- general


async def test_a1_every_answer_names_the_version() -> None:
    def refuse(new: NewUpload, request: Request) -> None:
        if "refuse" in new.metadata:
            raise Rejected(422, "no_thanks", "Not that one.")

    answers: list[Response] = []
    async with stage(on_create=refuse) as s:
        url = await s.client.create("/files", length=5)
        answers.append(await s.client.request("POST", "/files", headers={"Upload-Length": "7"}))
        answers.append(await s.client.request("POST", "/files"))
        answers.append(
            await s.client.request(
                "POST", "/files", headers={"Upload-Length": "7", "Upload-Metadata": "refuse"}
            )
        )
        answers.append(await s.client.request("POST", "/files", headers={"Upload-Length": str(2**60)}))
        answers.append(await s.client.request("GET", url))
        answers.append(await s.client.request("BREW", "/files"))
        answers.append(await s.client.head(url, headers={"Tus-Resumable": None}))
        answers.append(await s.client.head(url))
        answers.append(await s.client.head("/files/nobody"))
        answers.append(await s.client.head("/files/../etc"))
        answers.append(await s.client.append(url, b"x", at=3))
        answers.append(await s.client.append(url, b"x", headers={"Content-Type": "text/plain"}))
        s.storage.at.coming["write"].append(StorageFull("no room"))
        answers.append(await s.client.append(url, b"hello"))
        s.store.at.coming["get"].append(StoreUnavailable("away"))
        answers.append(await s.client.append(url, b"hello"))
        async with s.client.half_open(url, b"he") as silent:
            assert await s.client.offset(url) == 2
            answers.append(await silent.response())
        answers.append(await s.client.append(url, b"llo", at=2))
        answers.append(await s.client.append(url, b"x", at=5))
        answers.append(await s.client.delete(url))
        answers.append(await s.client.head(url))
    assert [answer.status for answer in answers] == [
        *(201, 400, 422, 413, 405, 405, 412, 200, 404, 404, 409, 415, 507, 503, 423, 204, 403, 204, 410),
    ]
    assert [answer.headers.getlist("tus-resumable") for answer in answers] == [["1.0.0"]] * len(answers)


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.0, 1.0.0", "1.0", ""])
@pytest.mark.parametrize("method", METHODS)
async def test_a2_another_version_is_412_with_ours(method: str, version: str | None) -> None:
    async with stage() as s:
        url = "/files" if method == "POST" else await s.client.create("/files", length=5)
        answer = await any_request(s.client, method, url, version)
        if method == "HEAD":
            assert_head_refused(answer, 412)
        else:
            assert_refused(answer, 412, "unsupported_version")
        assert answer.headers["tus-version"] == "1.0.0"


@pytest.mark.parametrize("method", METHODS)
async def test_a3_another_version_changes_nothing_and_asks_nobody(method: str) -> None:
    heard: list[str] = []

    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        heard.append("authorize")
        return None

    def on_create(new: NewUpload, request: Request) -> None:
        heard.append("on_create")

    async with stage(authorize=authorize, on_create=on_create) as s:
        url = await s.client.create("/files", length=5)
        before = dict(s.store.records)
        heard.clear()
        s.store.at.calls.clear()
        await any_request(s.client, method, "/files" if method == "POST" else url, "0.2.2")
        assert not heard
        assert not s.store.at.calls, "the store was touched"
        assert s.store.records == before
        assert s.storage.bytes == 0
        assert await s.client.offset(url) == 0


@pytest.mark.parametrize("version", [None, "0.0.0", "1.0.0", "nonsense"])
async def test_a4_options_ignores_the_version(version: str | None) -> None:
    async with stage() as s:
        assert (await s.client.options("/files", headers={"Tus-Resumable": version})).status == 204


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_a5_an_override_replaces_the_method(method: str) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)

        async def instead(
            override: str, headers: dict[str, str] | None = None, body: bytes = b""
        ) -> Response:
            sent = {"X-HTTP-Method-Override": override, **(headers or {})}
            return await s.client.request(method, url, headers=sent, body=body)

        patched = await instead("PATCH", {"Upload-Offset": "0", "Content-Type": OCTETS}, b"he")
        assert (patched.status, patched.headers["upload-offset"]) == (204, "2")
        patched = await instead("patch", {"Upload-Offset": "2", "Content-Type": OCTETS}, b"llo")
        assert (patched.status, patched.headers["upload-offset"]) == (204, "5")
        head = await instead("Head")
        assert (head.status, head.headers["upload-offset"], head.body) == (200, "5", b"")
        assert (await instead("DELETE")).status == 204
        assert (await instead("HEAD")).status == 410


async def test_a5_a_head_has_no_body_whatever_it_stands_for() -> None:
    async with stage() as s:
        for override in ("DELETE", "PATCH", "BREW"):
            answer = await s.client.head("/files/nobody", headers={"X-HTTP-Method-Override": override})
            assert 400 <= answer.status < 500
            assert answer.body == b""


@pytest.mark.parametrize("override", [None, "BREW", "", "POST, PATCH"])
@pytest.mark.parametrize("path", ["/files", "/files/0123"])
async def test_a6_an_unknown_method_is_405_with_those_that_are_known(path: str, override: str | None) -> None:
    allowed = {"/files": "OPTIONS, POST", "/files/0123": "OPTIONS, HEAD, PATCH, DELETE"}
    method = "PROPFIND" if override is None else "PATCH"
    async with stage() as s:
        answer = await s.client.request(method, path, headers={"X-HTTP-Method-Override": override})
        assert_refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed[path]
        assert not s.store.at.calls


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/files", "OPTIONS, POST"),
        ("HEAD", "/files", "OPTIONS, POST"),
        ("DELETE", "/files/", "OPTIONS, POST"),
        ("POST", "/files/0123", "OPTIONS, HEAD, PATCH, DELETE"),
        ("GET", "/files/0123", "OPTIONS, HEAD, PATCH, DELETE"),
    ],
)
async def test_a6_a_known_method_in_the_wrong_place_is_405(method: str, path: str, allow: str) -> None:
    async with stage() as s:
        answer = await s.client.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("text", NO_NUMBERS)
async def test_a7_a_number_is_ascii_digits_and_nothing_else(text: str) -> None:
    async with stage() as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": text})
        assert_refused(answer, 400, "invalid_length")
        assert s.nothing_kept()
        url = await s.client.create("/files", length=60)
        assert_refused(
            await s.client.append(url, b"x", headers={"Upload-Offset": text}), 400, "invalid_offset"
        )
        assert_refused(
            await s.client.append(url, b"x", headers={"Upload-Length": text}), 400, "invalid_length"
        )
        assert await s.client.offset(url) == 0
        assert s.storage.bytes == 0


async def test_a7_two_values_are_none() -> None:
    async with stage() as s:
        twice = [("Upload-Length", "5"), ("Upload-Length", "5")]
        assert_refused(await s.client.request("POST", "/files", headers=twice), 400, "invalid_length")
        url = await s.client.create("/files", length=5)
        twice = [("Upload-Offset", "0"), ("Upload-Offset", "0")]
        assert_refused(await s.client.append(url, b"hello", headers=twice), 400, "invalid_offset")
        assert await s.client.offset(url) == 0


@pytest.mark.parametrize(
    "content_type",
    [OCTETS, OCTETS.upper(), f"{OCTETS}; charset=utf-8", f" {OCTETS.title()} ;x=y"],
)
async def test_a8_the_content_type_has_no_case_and_may_have_parameters(content_type: str) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        answer = await s.client.append(url, b"hello", headers={"Content-Type": content_type})
        assert answer.status == 204


# ---- OPTIONS


async def test_a9_options_is_204_with_the_versions() -> None:
    async with stage() as s:
        answer = await s.client.options("/files")
        assert (answer.status, answer.headers["tus-version"], answer.body) == (204, "1.0.0", b"")


async def test_a10_the_extensions_are_those_that_work() -> None:
    async with stage() as s:
        answer = await s.client.options("/files")
        announced = answer.headers["tus-extension"]
        assert announced == (
            "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,"
            "concatenation,concatenation-unfinished"
        )
    async with stage(expiry=None) as s:
        answer = await s.client.options("/files")
        assert "expiration" not in answer.headers["tus-extension"].split(",")


async def test_a10_no_extension_is_no_header() -> None:
    async with stage(extensions=()) as s:
        assert "tus-extension" not in (await s.client.options("/files")).headers


async def test_a11_the_largest_size_is_told() -> None:
    async with stage(max_size=12345) as s:
        assert (await s.client.options("/files")).headers["tus-max-size"] == "12345"


async def test_a12_no_checksum_no_algorithms() -> None:
    async with stage(extensions=["creation"]) as s:
        assert "tus-checksum-algorithm" not in (await s.client.options("/files")).headers


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/0123", "/files/no%2fid", "/files/a/b"])
async def test_a13_options_works_everywhere_for_anybody_without_the_store(path: str) -> None:
    def nobody(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise Rejected(403, "forbidden", "Not you.")

    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "PATCH"}
    async with stage(authorize=nobody) as s:
        s.store.at.calls.clear()
        answers = [await s.client.options(path), await s.client.options(path, headers=preflight)]
        assert [answer.status for answer in answers] == [204, 204]
        assert not s.store.at.calls
        assert not answers[0].asked


# ---- HEAD


async def test_a14_head_always_tells_the_offset() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        offsets = [(await s.client.head(url)).headers["upload-offset"]]
        await s.client.append(url, b"hel")
        offsets.append((await s.client.head(url)).headers["upload-offset"])
        await s.client.append(url, b"lo", at=3)
        offsets.append((await s.client.head(url)).headers["upload-offset"])
        assert offsets == ["0", "3", "5"]


async def test_a15_head_tells_the_length_and_defers_nothing() -> None:
    async with stage() as s:
        answer = await s.client.head(await s.client.create("/files", length=5))
        assert answer.headers["upload-length"] == "5"
        assert "upload-defer-length" not in answer.headers


async def test_a16_no_cache_keeps_what_head_said() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        assert (await s.client.head(url)).headers["cache-control"] == "no-store"
        assert_head_refused(await s.client.head("/files/nobody"), 404)
        await s.client.delete(url)
        assert_head_refused(await s.client.head(url), 410)

    def nobody(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise Rejected(403, "forbidden", "Not you.")

    async with stage(authorize=nobody) as s:
        assert_head_refused(await s.client.head(url), 403)


async def test_a17_head_is_200() -> None:
    async with stage() as s:
        assert (await s.client.head(await s.client.create("/files", length=5))).status == 200


async def test_a18_head_of_what_is_not_there_tells_no_offset() -> None:
    async with stage() as s:
        assert_head_refused(await s.client.head("/files/nobody"), 404)
        url = await s.whole(b"hello")
        await s.client.delete(url)
        assert_head_refused(await s.client.head(url), 410)


@pytest.mark.parametrize(
    "sent", ["name aGVsbG8=", "b ,a", "empty,other Zm9v , third", "B Zm9v,a /+8=", "k /w=="]
)
async def test_a19_metadata_comes_back_byte_for_byte(sent: str) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5, metadata=sent)
        assert (await s.client.head(url)).headers["upload-metadata"] == sent
        await s.client.append(url, b"hello")
        assert (await s.client.head(url)).headers["upload-metadata"] == sent


async def test_a19_no_metadata_is_no_header() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        assert "upload-metadata" not in (await s.client.head(url)).headers


@pytest.mark.parametrize("concat", ["partial", "final;/files/a /files/b", ""])
async def test_a20_joining_is_refused_where_it_is_not_announced(concat: str) -> None:
    async with stage(extensions=["creation"]) as s:
        sent = {"Upload-Length": "5", "Upload-Concat": concat}
        assert_refused(
            await s.client.request("POST", "/files", headers=sent), 400, "concatenation_unsupported"
        )
        assert s.nothing_kept()


async def test_a21_head_says_no_length_of_a_file() -> None:
    async with stage() as s:
        answer = await s.client.head(await s.whole(b"hello"))
        assert answer.headers.get("content-length", "0") == "0"
        assert answer.body == b""


async def test_a22_an_acknowledged_offset_is_there_after_the_process_is_gone() -> None:
    storage, store = NotingStorage(), NotingStore()
    async with stage(storage=storage, store=store) as s:
        url = await s.client.create("/files", length=9)
        acknowledged = int((await s.client.append(url, b"hello")).headers["upload-offset"])
        async with s.client.half_open(url, b"xy", at=5):
            await s.client.kill()
    async with stage(storage=storage, store=store) as s:
        offset = await s.client.offset(url)
        assert acknowledged <= offset <= 7
        assert (await s.client.append(url, b"helloxyz!"[offset:], at=offset)).status == 204
        assert await s.content(url) == b"helloxyz!"


async def test_a23_head_tells_what_a_dropped_patch_left_at_once() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123456789", cut_after=4)
        assert await s.client.offset(url) == 4


async def test_a23_head_tells_what_a_silent_patch_brought() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as silent:
            assert await s.client.offset(url) == 4
            assert await s.client.offset(url) == 4
            assert_refused(await silent.response(), 423, "upload_interrupted")


async def test_a23_head_disturbs_no_patch_that_is_at_work() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as busy:

            async def keep_on() -> None:
                for digit in b"45678":
                    await asyncio.sleep(0.05)
                    await busy.more(bytes([digit]))

            going_on = asyncio.ensure_future(keep_on())
            seen = await s.client.offset(url)
            assert 4 <= seen < 10
            await going_on
            busy.offer(b"9")
            busy.end()
            assert (await busy.response()).status == 204
        assert await s.content(url) == b"0123456789"


async def test_a_path_that_is_not_ours_says_where_we_are() -> None:
    app = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(app) as client:
        answer = await client.request("POST", "/elsewhere", headers={"Upload-Length": "5"})
        assert_refused(answer, 404, "upload_not_found")
        assert "/files" in answer.body.decode()


async def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    await _as_asgi(TusApp("/files", storage=NotingStorage(), store=NotingStore()), receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def _as_asgi(app: TusApp, receive: Receive, send: Send) -> None:
    scope: Scope = {"type": "websocket", "path": "/files", "headers": []}
    await app(scope, receive, send)


async def test_a_state_of_receiving_is_what_a_new_upload_has() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        assert await s.state(url) is UploadState.RECEIVING
        assert s.store.records[id_of(url)].offset == 0
