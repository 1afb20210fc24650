"""Which rows belong to which device, by Flower Datasets' partitioners, and which to a test split."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError
from cdc_flower.data.pictures import PackError
from cdc_flower.data.rows import as_words
from cdc_flower.draws import generator
from cdc_flower.stages import DataConfig


def partition(frame: pd.DataFrame, config: DataConfig, devices: int, seed: int) -> list[np.ndarray]:
    """Give every row to one device, by a Flower Datasets partitioner, or (`shared`) all rows to every device.

    `iid` cuts shuffled rows evenly; `natural` gives a device whole values of `partition_by` (several, if
    there are more values than devices); `dirichlet` draws each value's shares over devices from
    Dirichlet(alpha).

    Args:
        frame: train rows.
        config: partition settings.
        devices: how many.
        seed: of the shuffle or the draw.

    Returns:
        For each device the (rows,) int64 positions in `frame`, sorted; together every position once, but for
        `shared`.

    Raises:
        ConfigError: fewer rows or natural values than devices, a missing column, or no division with a row
            for each.
    """
    if config.partition == "shared":
        return [np.arange(len(frame), dtype=np.int64)] * devices
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, GroupedNaturalIdPartitioner, IidPartitioner

    if len(frame) < devices:
        raise ConfigError(
            f"setting 'run.devices' = {devices}: the data has {len(frame)} usable train rows; "
            f"allowed: at most {len(frame)}, or 'partition' = 'shared'"
        )
    rng = generator(seed, "partition")
    rows = np.arange(len(frame), dtype=np.int64)
    if config.partition == "iid":
        table = {"row": rng.permutation(rows)}
        cutter = IidPartitioner(num_partitions=devices)
    else:
        if config.partition_by not in frame.columns:
            raise ConfigError(
                f"setting 'data.partition-by' = {config.partition_by!r}: the data has no such "
                f"column; allowed: {', '.join(map(str, frame.columns))}"
            )
        by = as_words(frame[config.partition_by])
        if config.partition == "natural":
            values = sorted(by.unique())
            if len(values) < devices:
                raise ConfigError(
                    f"setting 'run.devices' = {devices}: column '{config.partition_by}' (setting "
                    f"'data.partition-by') has {len(values)} values; allowed with partition "
                    f"natural: at most {len(values)}"
                )
            groups = np.array_split(rng.permutation(np.array(values, dtype=object)), devices)
            owner = {value: device for device, group in enumerate(groups) for value in group}
            table = {"row": rows, "by": np.array([owner[value] for value in by], dtype=np.int64)}
            cutter = GroupedNaturalIdPartitioner(partition_by="by", group_size=1, sort_unique_ids=True)
        else:
            table = {"row": rows, "by": by.to_numpy(dtype=object)}
            cutter = DirichletPartitioner(
                num_partitions=devices,
                partition_by="by",
                min_partition_size=1,
                alpha=config.dirichlet_alpha,
                seed=int(rng.integers(2**31)),
            )
    cutter.dataset = Dataset.from_dict(table)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every redrawn Dirichlet sample warns
            parts = [cutter.load_partition(device)["row"][:] for device in range(devices)]
    except ValueError as err:
        raise ConfigError(
            f"setting 'data.dirichlet-alpha' = {config.dirichlet_alpha}: no division of "
            f"{len(frame)} rows over {devices} devices with a row for each was found; "
            f"allowed: a larger alpha or fewer devices ({str(err).split('.')[0]})"
        ) from None
    return [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]


def hold_out(rows: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut rows into train and test so that no picture is in both.

    Args:
        rows: with column `image_id`.
        share: of the pictures that are held out; at least one is, and at least one is not.
        seed: of the choice.

    Raises:
        PackError: fewer than two pictures, or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise PackError(f"test share {share}: allowed: above 0 and below 1")
    names = sorted(rows["image_id"].unique())
    if len(names) < 2:
        raise PackError(
            f"the source has no test split and {len(names)} pictures; at least 2 are needed to hold some out"
        )
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    held = rows["image_id"].isin([names[i] for i in chosen]).to_numpy(dtype=bool)
    return rows.loc[~held].reset_index(drop=True), rows.loc[held].reset_index(drop=True)
