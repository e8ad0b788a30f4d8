"""Images whose classes are listed in files, as AffectNet, RAF-DB and their copies have them."""

import json
import re
import tarfile
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import InputError
from storage.opening import open_store
from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS
from tasks.ingest import IngestConfig, Source, ingest
from tasks.prepare import PrepareConfig, PreparedData, load_split, prepare
from tasks.prepare.lists import read_list
from tasks.vocabulary import check_labels, vocabulary
from tests.releases import new_store

AFFECTNET = "subDirectory_filePath,face_x,face_y,facial_landmarks,expression,valence,arousal\n"
PLAIN = PrepareConfig(target_per_class=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source's folder in a store."""
    new_store(tmp_path / "store")
    return tmp_path / "store/datasets/faces"


def write_images(folder: Path, *names: str) -> None:
    rng = np.random.default_rng(len(names))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / name)


def write_list(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def run(folder: Path, config: PrepareConfig = PLAIN, **fields: object) -> PreparedData:
    source = Source.model_validate({"name": "faces", "prefix": "datasets/faces", **fields})
    work = folder.parents[2] / "work"
    return prepare(ingest(open_store(folder.parents[1]), IngestConfig(sources=(source,)), work), config, work)


def classes(data: PreparedData) -> dict[str, str]:
    """Key → class of all images."""
    return {
        name.decode().removeprefix("faces:"): CLASSES[label]
        for split in (load_split(data.directory, one) for one in SPLITS)
        for name, label in zip(split.ids.tolist(), split.labels, strict=True)
    }


def origin(data: PreparedData) -> dict[str, int]:
    return json.loads(data.metadata_path.read_text())["origins"]["faces"]


def test_affectnet_is_read_from_its_two_lists_without_contempt(folder: Path) -> None:
    write_images(folder, "689/a.png", "689/b.png", "12/c.png", "12/d.png", "12/e.png")
    write_list(folder, "training.csv", f"{AFFECTNET}689/a.png,0,0,1;2,1,0,0\n689/b.png,0,0,1;2,6,0,0\n"
               "12/e.png,0,0,1;2,7,0,0\n")  # fmt: skip
    write_list(folder, "validation.csv", f"{AFFECTNET}12/c.png,0,0,1;2,2,0,0\n")
    data = run(folder, lists=("training.csv", "validation.csv"), numbers="affectnet")
    assert classes(data) == {"689/a.png": "happy", "689/b.png": "stress", "12/c.png": "sad"}
    assert (origin(data)["left_out"], origin(data)["unlisted"]) == (1, 1)


def test_raf_db_is_read_from_its_list_though_its_images_are_named_otherwise(folder: Path) -> None:
    write_images(folder, "Image/aligned/train_00001_aligned.png", "Image/aligned/test_0001_aligned.png")
    write_list(folder, "EmoLabel/list_patition_label.txt", "train_00001.png 5\ntest_0001.png 7\n")
    data = run(folder, lists=["EmoLabel/list_patition_label.txt"], numbers="raf_db")
    assert sorted(classes(data).values()) == ["neutral", "sad"]


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n1.png,happy\n2.png,Angry\n",
        "label\tpath\nHappy\timages/1.png\nanger\timages/2.png\n",
        ",pth,label,relFCs\n0,images/1.png,happy,0.8\n1,images\\2.png,fear,0.7\n",
        "\ufefffile;emotion\n1.png;happiness\n2.png;disgust\n",
        'name,class\n"1.png","happy"\n\n"2.png","angry"\n',
    ],
    ids=["csv", "tsv", "an index column", "semicolons", "quotes"],
)
def test_lists_of_names_are_read_however_they_are_written(folder: Path, text: str) -> None:
    write_images(folder, "images/1.png", "images/2.png")
    write_list(folder, "labels.csv", text)
    assert classes(run(folder, lists=["labels.csv"])) == {"images/1.png": "happy", "images/2.png": "stress"}


def test_a_number_that_a_spreadsheet_made_a_fraction_is_the_number(tmp_path: Path) -> None:
    write_list(tmp_path, "labels.csv", "file,label\n1.png,3.0\n")
    assert read_list(tmp_path / "labels.csv", "labels.csv")["label"].tolist() == ["3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^faces: labels\.csv: expected a line for each image.*, got an empty file; write"),
        (
            "file;label\r\n\r\n",
            r"^faces: labels\.csv: expected a line for each image.*, got a heading alone; write",
        ),
        ("a,b\n1.png,happy\n", r"^faces: labels\.csv: the first line is \['a', 'b'\]; expected a column"),
        ("file,label\n1.png,bored\n2.png,bored\n", r"no class is known for 'bored' \(images: 2\); map each"),
        ("file,label\n1.png,happy\n2.png,3\n", r"no class is known for '3' .*numbers = \"affectnet\""),
        ("file,label\n1.png,happy\n1.png,sad\n2.png,sad\n", r"'1\.png' is listed as 'happy' and as 'sad'"),
        (
            "file,label\n1.png,happy\n3.png,sad\n",
            r"1 of 2 images can't be read.*'3\.png' is listed, but there is no",
        ),
        ("file,label\n1.png,happy\n2.png,\n", r"1 of 2 .*'2\.png' is listed without a label"),
        ("file,label\n1.png\n2.png,sad,x,y,z\n", r"can't be read as a list"),
        ("file,label\n1.png,happy\n2.png\n", r"1 of 2 .*'2\.png' is listed without a label"),
        ("file,label,Label\n1.png,happy,sad\n", r"more than one column is called 'label'; rename"),
    ],
)
def test_a_list_that_is_none_or_half_is_one_error(folder: Path, text: str, message: str) -> None:
    write_images(folder, "1.png", "2.png")
    write_list(folder, "labels.csv", text)
    with pytest.raises(InputError, match=message):
        run(folder, lists=["labels.csv"])


def test_binary_garbage_is_no_list(folder: Path) -> None:
    write_images(folder, "1.png")
    (folder / "labels.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match=r"labels\.csv: can't be read as a list"):
        run(folder, lists=["labels.csv"])


def test_two_images_of_one_name_are_told_apart_by_the_lists_folder(folder: Path) -> None:
    write_images(folder, "train/1.png", "test/1.png")
    write_list(folder, "train/labels.csv", "file,label\n1.png,happy\n")
    write_list(folder, "test/labels.csv", "file,label\n1.png,sad\n")
    data = run(folder, lists=["train/labels.csv", "test/labels.csv"])
    assert classes(data) == {"train/1.png": "happy", "test/1.png": "sad"}


def test_the_lines_of_the_docs_make_a_list_of_affectnets_npy_files(folder: Path) -> None:
    labels = {"train_set/images/1.jpg": "1", "train_set/images/2.jpg": "7", "val_set/images/1.jpg": "6"}
    write_images(folder, *labels)
    for image, label in labels.items():
        path = folder / image.replace("images", "annotations").replace(".jpg", "_exp.npy")
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.array(label))
        np.save(path.with_name(path.name.replace("exp", "val")), np.array("-0.5"))
    docs = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.+?)```", docs, re.DOTALL)
    exec(textwrap.dedent(lines).replace("STORE/datasets/affectnet", str(folder)), {})
    data = run(folder, lists=["labels.csv"], numbers="affectnet")
    assert classes(data) == {"train_set/images/1.jpg": "happy", "val_set/images/1.jpg": "stress"}


def warnings(data: PreparedData) -> list[str]:
    return [told for told in json.loads(data.metadata_path.read_text())["warnings"] if "mapping" in told]


def test_a_mapped_name_that_no_list_says_is_told_with_the_nearest(folder: Path) -> None:
    write_images(folder, "1.png", "2.png")
    write_list(folder, "labels.csv", "file,label\n1.png,Sleepy\n2.png,happy\n")
    mapping = {"sleepy": "fatigue", "sleeepy": "fatigue", "bored": ""}
    (told,) = warnings(run(folder, lists=["labels.csv"], mapping=mapping))
    assert "'sleeepy' (nearest: 'sleepy'), 'bored'; correct them" in told


def test_a_mapped_name_that_no_folder_has_is_told_and_those_that_are_there_are_not(folder: Path) -> None:
    write_images(folder, "Tired/1.png", "happy/2.png", "blurred/3.png", "sad/4.png")
    with tarfile.open(folder / "more.tar", "w") as tar:
        tar.add(folder / "happy/2.png", "yawning/5.png")
    mapping = {"tired": "fatigue", "yawning": "fatigue", "blurred": "", "blured": "", "bored": ""}
    (told,) = warnings(run(folder, mapping=mapping))
    assert told.startswith(
        "faces: its mapping has names that no image of it has: 'blured' (nearest: 'blurred'), 'b"
    )
    assert not warnings(run(folder, mapping={"tired": "fatigue", "yawning": "fatigue", "blurred": ""}))


def test_a_name_that_is_mapped_twice_by_its_case_alone_is_an_error() -> None:
    with pytest.raises(ValueError, match="'tired' is mapped to 'fatigue' and to 'sad'; case and blanks"):
        vocabulary("", {"Tired": "fatigue", "tired ": "sad"})
    assert vocabulary("", {"Tired": "fatigue", "tired ": "Fatigue"})["tired"] == "fatigue"


def test_an_empty_name_can_not_be_mapped() -> None:
    with pytest.raises(ValueError, match="mapping: an empty name stands for no folder or label"):
        vocabulary("", {" ": "fatigue"})


@pytest.mark.parametrize("name", ["", "../labels.csv", "/labels.csv", "./labels.csv"])
def test_a_list_that_lies_elsewhere_is_refused_before_anything_is_read(name: str) -> None:
    with pytest.raises(ValueError, match=r"object key .* expected a relative path"):
        Source(name="faces", prefix="datasets/faces", lists=(name,))


@pytest.mark.parametrize("label", ['so "so"', "s\0ad", "C:\\sad", "müde"])
def test_the_line_that_an_unknown_label_is_to_be_mapped_by_is_toml(label: str) -> None:
    with pytest.raises(InputError) as caught:
        check_labels("labels.csv", [label], vocabulary("", {}))
    (line,) = re.findall(r'as (".*" = "stress"), or', str(caught.value))
    assert tomllib.loads(line) == {label: "stress"}
