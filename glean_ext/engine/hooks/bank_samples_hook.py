"""Shows what a bank in training draws."""

from __future__ import annotations

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.engine.bank_samples import averaged_bank, sample_sheet


class BankSamplesHook(Hook):
    """Sends images of a bank in training to the runner's visualizer: fixed latent codes, the average of its weights.

    Args:
        interval: Iterations between pictures; there is one at the end, too.
        rows: Rows of the picture.
        columns: Columns of the picture.
    """

    def __init__(self, interval: int = 5000, rows: int = 4, columns: int = 8):
        self.interval = interval
        self.rows = rows
        self.columns = columns

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            bank = averaged_bank(runner)
            training = bank.training
            sheet = sample_sheet(bank.eval(), self.rows, self.columns)
            bank.train(training)
            runner.visualizer.add_image("samples", np.asarray(sheet), step=runner.iter + 1)
