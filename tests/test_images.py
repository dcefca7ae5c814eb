"""Images and documents: what a cell means, what is refused, what stands in the message."""

from __future__ import annotations

import base64
import io
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.rendering import prepare
from nyu_llm_frames._stages.requests.images import MAX_INLINE_BYTES, Rules, contents, row_sources
from nyu_llm_frames._stages.requests.media import File, Inline, Link, sources
from nyu_llm_frames._tables import image_cells as files
from nyu_llm_frames.errors import (
    BudgetError,
    ConfigurationError,
    MissingColumnError,
    MissingValueError,
    RequestError,
)

MODEL = "gemini-3-flash-preview"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
JPEG = b"\xff\xd8\xff\xe0" + b"pixels"
PDF = b"%PDF-1.7 text"
GEMINI = Rules("gemini", 90_000_000)


def cells(*values: Any) -> pd.Series:
    out = pd.Series([None] * len(values), dtype=object)
    for i, value in enumerate(values):
        out.iat[i] = value
    return out


def frame(*values: Any) -> pd.DataFrame:
    return pd.DataFrame({"q": ["what?"] * len(values), "photo": cells(*values)})


def messages(data: pd.DataFrame, images: Any = "photo", **asked: Any) -> list[Any]:
    shown = data.llm.preview("{{ q }}", model=MODEL, images=images, n=99, **asked)
    return list(shown["messages"])


def parts(value: Any, **asked: Any) -> list[dict[str, Any]]:
    content = messages(frame(value), **asked)[0][-1]["content"]
    assert content[0] == {"type": "text", "text": "what?"}
    assert all(part["type"] == "image_url" for part in content[1:])
    return [part["image_url"] for part in content[1:]]


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# --- what a cell means ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("gs://b/a.png", None),
        ("https://h/x/a.jpeg", None),
        ("gs://b/a.pdf", None),
        ("gs://b/a.JPG", "image/jpeg"),
        ("https://h/a.png?size=2", "image/png"),
        ("https://h/scan.pdf?thumb=x.png", "application/pdf"),
        ("https://h/scan.pdf#page=1.png", "application/pdf"),
        ("https://h/a.jpg?to=b.jpeg", None),
        ("https://h/scan.pdf?as=b.html", "application/pdf"),
        ("gs://b/scan.pdf?x=a.png", None),
        ("gs://b/a.heic", "image/heic"),
        ("gs://b/odd name?.webp", None),
    ],
)
def test_urls_go_with_their_type_where_it_would_not_be_guessed(url: str, kind: str | None) -> None:
    expected = {"url": url} if kind is None else {"url": url, "mime_type": kind}
    assert parts(url) == [expected]


def test_a_type_can_be_given() -> None:
    given = {"url": "https://h/image?id=3", "mime_type": "image/webp"}
    assert parts(given) == [given]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (PDF, "application/pdf"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x18ftypheic\0\0", "image/heic"),
    ],
)
def test_files_and_bytes_are_the_same_request_wherever_they_lie(
    data: bytes, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "named wrongly.txt"
    path.write_bytes(data)
    Path("beside").write_bytes(data)
    same = frame(data, bytearray(data), path, str(path), "beside", data_url("image/x", data))
    shown = same.llm.preview("{{ q }}", model=MODEL, images="photo", n=9)
    assert shown["custom_id"].nunique() == 1
    assert parts(data) == [{"url": data_url(kind, data)}]


def test_several_images_keep_their_order() -> None:
    data = frame([PNG, "gs://b/a.png"]).assign(scan=["gs://b/b.pdf"])
    found = messages(data, images=["photo", "scan"])[0][0]["content"]
    urls = [part["image_url"]["url"] for part in found[1:]]
    assert urls == [data_url("image/png", PNG), "gs://b/a.png", "gs://b/b.pdf"]


def test_images_stand_in_the_last_user_message() -> None:
    template = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "an example"},
        {"role": "assistant", "content": "its answer"},
        {"role": "user", "content": "{{ q }}"},
    ]
    shown = frame(PNG).llm.preview(template, model=MODEL, images="photo")["messages"].iloc[0]
    assert [isinstance(m["content"], list) for m in shown] == [False, False, False, True]


def test_a_row_without_image_is_the_same_request_as_without_images() -> None:
    data = frame([], "gs://b/a.png")
    with_, without = (
        data.llm.preview("{{ q }}", model=MODEL, images=images)["custom_id"].iloc[0]
        for images in ("photo", None)
    )
    assert with_ == without


def test_missing_images_are_an_error_unless_skipped() -> None:
    data = frame(PNG, None, float("nan"), pd.NA, {"bytes": None, "path": None})
    with pytest.raises(MissingValueError, match="4 in column 'photo'") as caught:
        messages(data)
    assert caught.value.rows == (1, 2, 3)
    assert [m is None for m in messages(data, missing="skip")] == [False, True, True, True, True]


def test_arrow_columns_of_bytes_and_lists_work() -> None:
    data = pd.DataFrame(
        {
            "q": ["what?"] * 2,
            "raw": cells(PNG, PDF).astype(pd.ArrowDtype(pa.binary())),
            "links": cells(["gs://b/a.png"], []).astype(pd.ArrowDtype(pa.list_(pa.string()))),
        }
    )
    found = messages(data, images=["raw", "links"])
    assert [len(m[0]["content"]) for m in found] == [3, 2]


def test_cells_of_a_hugging_face_dataset_are_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    held = {"bytes": PNG, "path": "elsewhere.jpg"}
    named = {"bytes": None, "path": str(tmp_path / "a.png")}
    data = frame(PNG, held, named, [held])
    data.iloc[1:3].to_parquet("in.parquet")
    again = pd.read_parquet("in.parquet", dtype_backend="pyarrow")
    shown = pd.concat(
        found.llm.preview("{{ q }}", model=MODEL, images="photo", n=9) for found in (data, again)
    )
    assert shown["custom_id"].nunique() == 1


def test_a_parquet_file_of_a_hugging_face_dataset_has_images(
    gateway: StandIn, tmp_path: Path
) -> None:
    data = frame({"bytes": PNG, "path": "a.png"}, {"bytes": JPEG, "path": None})
    data.to_parquet("in.parquet")
    llm.batch_file("in.parquet", "out.parquet", "{{ q }}", model=MODEL, images="photo")
    assert pd.read_parquet("out.parquet")["response"].notna().all()
    uploaded = b"".join(gateway.uploads.values())
    assert uploaded.count(base64.b64encode(PNG)) == uploaded.count(base64.b64encode(JPEG)) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
def test_pil_images_are_sent_as_png(mode: str) -> None:
    from PIL import Image

    image = Image.new("RGB", (3, 2), (200, 30, 10)).convert(mode)
    made, again = parts([image, image.copy()])
    assert made == again
    kind, _, payload = made["url"].partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(payload))) as sent:
        assert sent.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_a_pil_image_is_the_same_request_before_and_after_somebody_looked_at_it(
    tmp_path: Path,
) -> None:
    from PIL import Image

    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        unseen = messages(frame(image))
        image.load()
        assert messages(frame(image)) == unseen


def test_a_pil_image_without_pixels_names_its_row(tmp_path: Path) -> None:
    from PIL import Image

    whole, cut = tmp_path / "a.jpg", tmp_path / "cut.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    cut.write_bytes(whole.read_bytes()[:1000])
    closed = Image.open(whole)
    closed.close()
    with Image.open(cut) as half:
        for image in (Image.new("RGB", (0, 0)), half, closed, [PNG, closed]):
            with pytest.raises(RequestError, match="Row 1, column 'photo': the pixels"):
                messages(frame(PNG, image))


# --- where files may be read ----------------------------------------------------------------
def test_no_file_outside_of_images_root_is_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "photos", tmp_path / "secret.png"
    (root / "deep").mkdir(parents=True)
    for path in (root / "deep" / "a.png", secret, tmp_path / "photos2.png"):
        path.write_bytes(PNG)
    (root / "link.png").symlink_to(secret)
    (root / "inside.png").symlink_to(root / "deep" / "a.png")
    (tmp_path / "to_root").symlink_to(root)
    inside = ["photos/deep/a.png", root / "deep" / ".." / "inside.png", "to_root/deep/a.png"]
    with llm.set_options(images_root="photos"):
        assert len(messages(frame(*inside, PNG, "gs://b/a.png", [str(inside[1])]))) == 6
        for cell in (
            str(secret),
            secret,
            "photos/../secret.png",
            root / "link.png",
            f"{root}2.png",
            {"bytes": None, "path": str(secret)},
            ["photos/deep/a.png", str(secret)],
            "/etc/hostname",
            "~/.netrc",
            tmp_path / "not there.png",
        ):
            with pytest.raises(RequestError, match=r"Row 1, column 'photo'.*outside images_root"):
                messages(frame(PNG, cell))
    assert messages(frame(secret))


def test_images_root_holds_for_files_and_must_be_a_folder(gateway: StandIn, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    pd.DataFrame({"photo": ["a.png"]}).to_parquet("in.parquet")
    (tmp_path / "photos").mkdir()
    with (
        llm.set_options(images_root=tmp_path / "photos"),
        pytest.raises(RequestError, match="outside images_root"),
    ):
        llm.batch_file("in.parquet", "out.parquet", "What?", model=MODEL, images="photo")
    assert gateway.uploads == {}
    for wrong in ("nowhere", tmp_path / "a.png", 5, True):
        with pytest.raises(ConfigurationError, match="images_root must be a folder"):
            llm.set_options(images_root=wrong)


# --- what is refused ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("http://h/a.png", "would not arrive"),
        ("HTTPS://h/a.png", "would not arrive"),
        ("s3://b/a.png", "would not arrive"),
        (" https://h/a.png", "would not arrive"),
        ("file:///a.png", "without file://"),
        ("https://h", "names no file"),
        ("gs://bucket/", "names no file"),
        ("https://h/a b.png", "%20"),
        ("https://h/image", "not clear from its name"),
        ("https://h/show.php?file=a.png", "not clear from its name"),
        ("https://h/a.gif?x=a.png", "does not read image/gif"),
        ({"bytes": None, "path": "nowhere.png"}, "'nowhere.png' does not exist in "),
        ({"bytes": b"hello", "path": "a.png"}, "first bytes"),
        ("gs://b/a.gif", "does not read image/gif"),
        (b"GIF89a....", "does not read image/gif"),
        (b"", "is empty"),
        (b"hello", "first bytes"),
        ("", "empty text"),
        ("nowhere.png", "'nowhere.png' does not exist in "),
        (".", "is not a file"),
        ("nul\0.png", "cannot be read"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64,a*b=", "not base64"),
        (5, "of type int is not an image"),
        ([None], "missing value in a list"),
        ([["gs://b/a.png"]], "of type list is not an image"),
        ({"url": "gs://b/a"}, "a dict must be"),
        ({"url": "http://h/a", "mime_type": "image/png"}, "would not arrive"),
        ({"url": "gs://b/a", "mime_type": "PNG"}, "mime_type"),
        ({"url": "gs://b/a", "mime_type": "image/gif"}, "does not read"),
        (PNG + bytes(MAX_INLINE_BYTES), "gs:// URL"),
    ],
)
def test_what_would_not_arrive_is_refused(cell: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        messages(frame("gs://b/a.png", cell))
    assert (caught.value.row, caught.value.count) == (1, 1)
    assert "Row 1, column 'photo'" in str(caught.value)


def test_all_bad_rows_are_counted_and_the_first_is_named() -> None:
    data = frame("gs://b/a.png", "gs://b/a.png", "gone.png").assign(
        scan=cells(PNG, "gone.png", "gone.png")
    )
    with pytest.raises(RequestError, match="2 rows have") as caught:
        messages(data, images=["photo", "scan"])
    assert (caught.value.row, caught.value.count) == (1, 2)
    assert "column 'scan'" in str(caught.value)


def test_an_image_larger_than_an_input_file_is_never_read() -> None:
    with (
        llm.set_options(max_bytes_per_file=100),
        pytest.raises(RequestError, match="above the 75 that fit"),
    ):
        messages(frame(PNG + bytes(100)))


def test_columns_are_checked_by_name() -> None:
    data = frame(PNG)
    with pytest.raises(MissingColumnError, match="'foto', which is not a column") as caught:
        messages(data, images="foto")
    assert caught.value.available[0] == "photo"
    with pytest.raises(ConfigurationError, match="no column"):
        messages(data, images=[])
    with pytest.raises(ConfigurationError, match="more than once"):
        messages(data, images=["photo", "photo"])
    with pytest.raises(ConfigurationError, match="into a column first"):
        messages(data, images=PNG)


def test_the_model_on_this_machine_reads_text_only() -> None:
    with pytest.raises(RequestError, match="reads text only"):
        row_sources({"photo": [PNG]}, [0], Rules("embedded", 1000), files.look)


def test_other_servers_get_no_field_that_only_the_gateway_knows() -> None:
    other = Rules("open", 90_000_000)
    found = row_sources({"p": ["https://h/image", b"GIF89a."]}, [0, 1], other, files.look)
    made = list(contents(["a", "b"], found, other, files.read))
    assert "mime_type" not in made[0]
    assert "data:image/gif" in made[1]
    with pytest.raises(RequestError, match="Google bucket"):
        row_sources({"p": ["gs://b/a.png"]}, [0], other, files.look)


# --- laws and effort ------------------------------------------------------------------------
@given(st.binary(max_size=64))
def test_bytes_come_out_as_they_went_in(tail: bytes) -> None:
    (made,) = contents(["t"], [(Inline(PNG + tail),)], GEMINI, files.read)
    payload = made.partition("base64,")[2].partition('"')[0]
    assert base64.b64decode(payload) == PNG + tail


@given(st.text())
def test_any_text_is_a_link_a_path_or_refused(text: str) -> None:
    try:
        (found,) = sources(text)
    except RequestError:
        return
    assert isinstance(found, Link | File | Inline)
    if isinstance(found, Link):
        assert text.startswith(("gs://", "https://"))


def test_a_file_of_many_rows_is_read_once() -> None:
    reads = Counter[str]()

    def read(path: str) -> bytes:
        reads[path] += 1
        return PNG

    rows = [(File("a"),), (File("b"), File("a")), (File("a"),)]
    assert len(list(contents(["x", "y", "z"], rows, GEMINI, read))) == 3
    assert reads == {"a": 1, "b": 1}


def test_a_file_that_changed_since_it_was_checked_is_refused() -> None:
    with pytest.raises(RequestError, match="first bytes"):
        list(contents(["x"], [(File("a"),)], GEMINI, lambda path: b"now text"))


def test_images_are_held_once_in_base64(tmp_path: Path) -> None:
    size, rows = 200_000, 20
    for i in range(rows):
        (tmp_path / f"{i}").write_bytes(PNG + bytes([i]) * size)
    data = frame(*[str(tmp_path / f"{i}") for i in range(rows)])
    messages(frame(PNG))  # what is imported late is not what is measured
    tracemalloc.start()
    try:
        call = prepare(data, Arguments(template="{{ q }}", model=MODEL, images="photo"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = sum(map(len, call.requests.fragments.to_pylist()))
    assert held > rows * size * 4 / 3
    assert peak < 1.35 * held


def test_equal_rows_share_one_request_and_its_memory() -> None:
    call = prepare(frame(*[PNG] * 50), Arguments(template="{{ q }}", model=MODEL, images="photo"))
    assert len(call.requests) == 1


def test_numpy_pixels_are_not_taken_for_a_list_of_images() -> None:
    with pytest.raises(RequestError, match="of type int is not an image"):
        messages(frame(np.zeros(3, np.uint8)))


def test_a_file_handle_is_refused() -> None:
    with pytest.raises(RequestError, match="of type BytesIO is not an image"):
        messages(frame(io.BytesIO(PNG)))


@pytest.mark.parametrize("pages", [1, 12, 300])
def test_a_page_is_weighed_as_a_picture(pages: int) -> None:
    def estimated(data: bytes) -> Any:
        frame = pd.DataFrame({"file": [data]})
        return frame.llm.estimate("Summarise", model=MODEL, images="file", max_tokens=9)

    page = b"<</Type /Page/Parent 2 0 R>>\n"
    one, many = (estimated(b"%PDF-1.4\n<</Type/Pages>>\n" + page * n) for n in (1, pages))
    more = (many.prompt_tokens.expected - one.prompt_tokens.expected) / 1120
    assert more == pytest.approx(pages - 1, rel=0.01)


@pytest.mark.parametrize(
    "cell",
    [
        "gs://b/film.mp4",
        "https://host/report.pdf",
        "https://host/report.PDF?page=1",
        {"url": "https://host/17", "mime_type": "application/pdf"},
        "gs://b/book.txt",
        b"%PDF-1.7 packed",
    ],
)
def test_what_may_be_long_is_counted_as_long_by_the_limit(gateway: StandIn, cell: object) -> None:
    asked: dict[str, Any] = {"model": MODEL, "images": "file", "max_tokens": 9, "retries": 0}
    found = pd.DataFrame({"file": [cell, "gs://b/photo.png"]}).llm.estimate("What?", **asked)
    assert found.prompt_tokens.high > 1_048_576
    assert found.prompt_tokens.expected < 10_000
    assert "1 prompt with a document or recording of unknown length" in found.basis["prompt"]
    with pytest.raises(BudgetError, match="unknown length"):
        pd.DataFrame({"file": [cell]}).llm.batch("What?", max_cost=0.1, **asked)
