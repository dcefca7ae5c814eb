"""What the store holds, and what it holds after it is opened again."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames.local.store import Answer, Store, StoredFile, StoreError, file_id, uri_of


def put(store: Store, content: bytes, name: str = "a/in.jsonl") -> StoredFile:
    return store.add_file(BytesIO(content), bucket="b", name=name, purpose="batch")


@settings(deadline=None)  # the machine may be busy
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="%")))
def test_a_file_id_is_understood_however_often_it_was_encoded(name: str) -> None:
    uri = f"gs://bucket/{name}"
    once = file_id(uri)
    assert once.startswith("gs%3A%2F%2Fbucket%2F")
    assert uri_of(uri) == uri_of(once) == uri_of(file_id(once)) == uri


def test_the_first_answer_stays_and_is_counted_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.add_job(put(store, b"x"), "m")
    store.add_answers(job.id, [Answer(1, True, b"one"), Answer(2, False, b"two")])
    store.add_answers(job.id, [Answer(1, False, b"other")])
    store.close()
    again = Store(tmp_path)
    assert b"".join(again.output(job.id)) == b"one\ntwo\n"
    now = again.job(job.id)
    assert now is not None
    assert (now.good, now.failed, now.output_bytes) == (1, 1, 8)
    assert again.answered(job.id) == {1, 2}
    again.close()


def test_a_file_of_the_same_name_does_not_change_a_job_that_has_begun(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.add_job(put(store, b"old"), "m")
    put(store, b"new")
    latest = put(store, b"newest")
    assert store.path(job.blob).read_bytes() == b"old"
    assert store.path(latest.blob).read_bytes() == b"newest"
    assert len(list(store.blobs.iterdir())) == 2  # nobody needs "new"
    store.close()


def test_the_list_has_the_newest_first_and_says_when_there_are_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [store.add_job(put(store, b"x"), "m").id for _ in range(5)]
    newest, more = store.jobs(2)
    assert ([job.id for job in newest], more) == ([ids[4], ids[3]], True)
    rest, more = store.jobs(3, before=ids[3])
    assert ([job.id for job in rest], more) == ([ids[2], ids[1], ids[0]], False)
    store.close()


def test_an_upload_cut_by_a_crash_is_swept_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.blobs / "x.part"
    part.write_bytes(b"half")
    store.close()
    Store(tmp_path).close()
    assert not part.exists()


def test_a_row_that_ended_the_process_is_counted_until_it_is_answered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = store.add_job(put(store, b"x"), "m").id
    assert [store.begin_try(job, 1), store.begin_try(job, 1)] == [0, 1]
    store.add_answers(job, [Answer(1, True, b"a")])
    assert store.begin_try(job, 1) == 0
    store.forget_tries()
    assert store.begin_try(job, 1) == 0
    store.close()


def test_a_store_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="newer"):
        Store(tmp_path)
