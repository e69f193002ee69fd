"""Rename Snakemake's own records of jobs, if an earlier version of the project spelled paths of outputs differently."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

from dailies.core import files

RECORDS = Path(".snakemake/metadata")
"""Snakemake's folder of records, in the working directory."""

LONGEST = 254
"""Characters of a record's name that Snakemake 9.27 puts into one folder or file name."""


def respell(records: Path, written: str, output_dir: Path) -> None:
    """Rename the records of files below ``output_dir`` whose paths are not spelled as ``Layout`` spells them.

    Earlier versions wrote paths such as ``./.dailies/sequence.json`` if ``output_dir`` was ``.``. Without the record of
    a file, Snakemake does not notice that a parameter of its job has changed, and never runs the job again. ``written``
    is ``output_dir`` as the user wrote it.
    """
    if f"{written}/file" == str(output_dir / "file"):
        return
    for record in [path for path in records.rglob("*") if path.is_file()]:
        parts = record.relative_to(records).parts
        try:
            old = urlsafe_b64decode("".join(part.removeprefix("@") for part in parts)).decode()
        except ValueError:  # a file of another program, such as .DS_Store
            continue
        new = _spelled(old)
        if new == old or not Path(new).is_relative_to(output_dir):
            continue
        found = files.read_json(record)
        found["input"] = sorted(map(_spelled, found.get("input") or ()))
        found["input_checksums"] = {_spelled(key): sha for key, sha in (found.get("input_checksums") or {}).items()}
        target = _record(records, new)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(target, found)
        record.unlink()


def _spelled(path: str) -> str:
    return path if "://" in path else str(Path(path))


def _record(records: Path, path: str) -> Path:
    name = urlsafe_b64encode(path.encode()).decode()
    *folders, last = (name[start : start + LONGEST] for start in range(0, len(name), LONGEST))
    return records.joinpath(*(f"@{folder}" for folder in folders), last)
