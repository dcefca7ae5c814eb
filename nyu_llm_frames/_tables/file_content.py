"""Recognizes a file's format by its first bytes, and says how it becomes a table.

Comes in: the first bytes of a file. Goes out: its format; None where it is text.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

HEAD_BYTES = 4096
PARQUET_FILE, FEATHER_FILE, EXCEL_FILE = "a parquet file", "a Feather file", "an Excel file"
OLD_EXCEL = "an old Excel file, or one with a password"
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}

_R = "next(iter(pyreadr.read_r({path}).values())) (pip install pyreadr)"
_AVRO = 'pd.DataFrame(fastavro.reader(open({path}, "rb"))) (pip install fastavro)'
_READERS = {
    ".tsv": 'pd.read_csv({path}, sep="\\t"{packed})',
    ".tab": 'pd.read_csv({path}, sep="\\t"{packed})',
    ".tar": "pd.read_csv({path})",
    ".json": "pd.read_json({path}{packed})",
    ".jsonl": "pd.read_json({path}, lines=True{packed})",
    ".ndjson": "pd.read_json({path}, lines=True{packed})",
    ".xml": "pd.read_xml({path}{packed})",
    ".fwf": "pd.read_fwf({path}{packed})",
    ".por": "pyreadstat.read_por({path})[0] (pip install pyreadstat)",
    ".avro": _AVRO,
    **dict.fromkeys((".rds", ".rda", ".rdata"), _R),
}
_PACKED = {"gzip": "gzip", "bzip2": "bz2", "xz": "xz", "zstd": "zstd"}
_PACKED_NAMES = (".gz", ".bz2", ".xz", ".zst", ".zip")

# Headers of text files may hold names of formats too: there no such bytes follow.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"PAR[1E]", PARQUET_FILE, "pd.read_parquet({path})"),
    (rb"\x1f\x8b", "compressed with gzip", ""),
    (rb"BZh[1-9]1AY", "compressed with bzip2", ""),
    (rb"\xfd7zXZ\0", "compressed with xz", ""),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", ""),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLD_EXCEL, "pd.read_excel({path})"),
    (rb"ARROW1", FEATHER_FILE, "pd.read_feather({path})"),
    (rb"FEA1", "an old Feather file", "pd.read_feather({path})"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", "pd.read_hdf({path})"),
    (rb"\x80[\x02-\x05]", "a pickle", "pd.read_pickle({path}), if you trust it,"),
    (rb"\$FL[23]", "an SPSS file", "pd.read_spss({path})"),
    (rb"<stata_dta>|[\x69-\x73][\x01\x02]\x01\0", "a Stata file", "pd.read_stata({path})"),
    (rb"\0{12}\xc2\xea\x81\x60", "a SAS file", 'pd.read_sas({path}, format="sas7bdat")'),
    (rb"HEADER RECORD\*{7}LIB", "a SAS transport file", 'pd.read_sas({path}, format="xport")'),
    (rb"ORC", "an ORC file", "pd.read_orc({path})"),
    (rb"SQLite format 3\0", "an SQLite database", 'pd.read_sql("select ...", connection)'),
    (rb"Obj\x01", "an Avro file", _AVRO),
    (rb"RD[ABX][23]\n|X\n\0\0\0[\2\3]", "a file of R", _R),
    (rb"(?s).{8}DUCK", "a DuckDB database", 'duckdb.connect({path}).table("...").df()'),
    (rb"(?i)\s*<(!doctype\s+html|html)[\s>]", "a web page", "pd.read_html({path})[0]"),
    (rb"(\xef\xbb\xbf)?<\?xml\s", "an XML file", "pd.read_xml({path})"),
)
_PAGES = (
    "It is no table. A column of paths sends it along: pd.DataFrame({{'file': [{path}]}}), and "
    'images="file" in df.llm.batch.'
)
_DOCUMENT = "It is no table. Save it as PDF, and send that with images=; or put its text in a CSV."
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF-", "a PDF", _PAGES),
    (rb"(?s)\x89PNG\r|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP", "a picture", _PAGES),
)
_DOCUMENTS = {"word/": "a Word document", "ppt/": "a PowerPoint file"}
_OLD_DOCUMENTS = {".doc": "an old Word document", ".ppt": "an old PowerPoint file"}
_ARE_TEXT = ("a SAS transport file", "a web page", "an XML file")


def reader(path: Path, packed: str = "") -> str:
    """Return the line that reads a file by its name; `packed` is its compression for pandas."""
    name = Path(path.stem) if path.suffix.lower() in _PACKED_NAMES else path
    line = _READERS.get(name.suffix.lower(), "pd.read_csv({path}{packed})")
    more = f', compression="{packed}"' if packed else ""
    return line.format(path=repr(str(path)), packed=more)


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file are not text."""
    return _BINARY.search(head) is not None


def kind_of(path: Path, head: bytes) -> tuple[str, str] | None:
    """Return a file's format and how it becomes a table; None for text.

    `head` holds its first `HEAD_BYTES`.
    """
    if head.startswith(b"PK\3\4"):
        return _archive(path)
    for magic, name, cure in _OTHERS:
        if re.match(magic, head):
            return name, cure.format(path=repr(str(path)))
    for magic, name, line in _FORMATS:
        if (is_binary(head) or name in _ARE_TEXT) and re.match(magic, head):
            if name == OLD_EXCEL and path.suffix.lower() in _OLD_DOCUMENTS:
                return _OLD_DOCUMENTS[path.suffix.lower()], _DOCUMENT
            packed = _PACKED[name.split()[-1]] if not line else ""
            line = line.format(path=repr(str(path))) or reader(path, packed)
            return name, _read_with(line)
    return None


def _read_with(line: str) -> str:
    return f"Read it with {line} and use df.llm.batch; or save it as CSV or parquet."


def _archive(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            kind = archive.read("mimetype") if "mimetype" in names else b""
    except (zipfile.BadZipFile, OSError, RuntimeError):
        names, kind = [], b""
    if any(name.startswith("xl/") for name in names):
        return EXCEL_FILE, _read_with(f"pd.read_excel({str(path)!r})")
    for folder, document in _DOCUMENTS.items():
        if any(name.startswith(folder) for name in names):
            return document, _DOCUMENT
    if "content.xml" in names:
        if kind and b"spreadsheet" not in kind:
            return "an OpenDocument file", _DOCUMENT
        return "an OpenDocument file", _read_with(f"pd.read_excel({str(path)!r})")
    if any(name.startswith("Index/") and name.endswith(".iwa") for name in names):
        return "an Apple document", "Export it as CSV from Numbers, as PDF from Pages."
    return "a zip archive", _read_with(reader(path, "zip"))
