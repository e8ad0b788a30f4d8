"""Prepare: from ingested sources to a leak-free data set.

In: `Ingested` (manifests, and files in the content-addressed cache). Out, in
`<work_dir>/prepared/<fingerprint>/`: train_data.npz, val_data.npz, test_data.npz, images.npz (`facts`),
metadata.json, pictures.

Every image of every source stands on one canvas: uint8 (N, P, P, C), P = 48 and C = 1 by default.
FER-2013 is 48 px and grey, and fatigue comes only from photos: a common resolution and colour keep the
network from telling the source instead of the face. The network's own graph resizes and scales.

Members of each NPZ: see `Split`. The steps: read (`fer2013`, `ferplus`, `fer2013_rows`, `photos`, `lists` →
`reading` → `blocks`, `origins` → `collection`), find what belongs together (`duplicates`, `persons`), settle
labels (`labels`), assign whole groups (`splits`), write (`archive`, `writing`; copies of small classes on
request: `augment`), with sets from elsewhere apart (`elsewhere`), check it (`audit`, `shortcuts`), show it
(`pictures`).
"""

import json
from pathlib import Path

from prefect import get_run_logger, task

from storage.opening import open_store
from tasks.config.prepare import PrepareConfig
from tasks.ingest import Ingested
from tasks.prepare.dataset import prepare, publish
from tasks.prepare.prepared import PreparedData
from tasks.prepare.splits import Split, load_elsewhere, load_split

__all__ = [
    "PrepareConfig", "PreparedData", "Split", "load_elsewhere", "load_split", "prepare", "prepare_dataset",
]  # fmt: skip


@task(name="prepare", task_run_name="prepare")
def prepare_dataset(
    store_uri: str, ingested: Ingested, config: PrepareConfig, work_dir: Path
) -> PreparedData:
    """Prepare the data set, say what it holds, and lay it into the store under prepared/<fingerprint>/."""
    log = get_run_logger()
    data = prepare(ingested, config, work_dir)
    for split, counts in data.counts.items():
        if any(counts.values()):
            log.info("%s: %s", split, ", ".join(f"{count} {name}" for name, count in counts.items()))
    log.info("labels: %s", data.label_set)
    metadata = json.loads(data.metadata_path.read_text())
    for source, told in metadata["elsewhere"].items():
        log.info("%s, to measure on: %s", source, told)
    for note in metadata["notes"]:
        log.info(note)
    for warning in metadata["warnings"]:
        log.warning(warning)
    publish(open_store(store_uri), data)
    return data
