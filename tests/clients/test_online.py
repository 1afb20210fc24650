"""What learners on the device share: batches, means over steps, Adam from where it was."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import RecordDict

from clients.inference import alone
from clients.online import Batch, adam, online, steps
from clients.store import Adapter, Store


def test_a_mean_over_steps_then_over_samples():
    wanted = torch.tensor([[5, 6, 7], [5, -100, -100]])
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    assert (values * steps(torch.zeros(2, 3, 9), wanted)).sum().item() == (2 + 10) / 2


def test_steps_of_adam_go_on_from_its_moments():
    rng, p = np.random.default_rng(0), torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([p], lr=0.1)
    values, moments = np.ones(4, np.float32), np.zeros(0, np.float32)
    for _ in range(3):
        p.grad = torch.from_numpy(rng.normal(size=4).astype(np.float32))
        optimizer.step()
        values, moments = adam(values, p.grad, moments, 0.1)
        np.testing.assert_array_equal(values, p.detach().numpy())
    assert moments.shape == (9,)
    assert moments[0] == 3


class Counting:
    """Adds one to its adapter with every batch, and keeps how many samples each had."""

    def __init__(self, task):
        from clients.fedavg import trainee
        from clients.local import untrained

        self.model = trainee(task.shared, task.config.pair, False)
        self.flat, self.heard = untrained(task.shared, task.config.pair).flat, list[Batch]()

    def worn(self):
        return Adapter.of(self.flat, 0)

    def learn(self, batch):
        self.heard.append(batch)
        self.flat = self.flat + np.float32(1)
        return float(len(self.heard)), batch.read()

    def kept(self):
        return np.append(self.flat, np.float32(7))


def test_a_batch_is_answered_by_what_those_before_it_left(make_task):
    store = Store(RecordDict())
    task = make_task(order={"batch": 4}, store=store)
    learner = Counting(task)
    reply = alone(online(task, learner))
    assert [len(batch.asked) for batch in learner.heard] == [4, 2]
    assert reply["metrics"]["num-examples"] == 6
    assert reply["metrics"]["loss"] == 1.5
    assert reply["metrics"]["counts"][0] == 2 * 6  # answered, and read by the learner
    assert list(reply) == ["metrics"]
    held = store.held(Adapter.of(np.zeros(1, np.float32), 0))
    np.testing.assert_array_equal(held.flat, learner.kept())
    assert len(store.said(1)) == 6


def test_a_view_has_some_tokens_of_some_samples(make_task):
    task = make_task(order={"batch": 6})
    learner = Counting(task)
    alone(online(task, learner))
    (batch,) = learner.heard
    view = batch.seen([3, 0], [np.array([1, 5]), np.array([2])])
    inputs = view.inputs()
    assert inputs.positions[:, 0].tolist() == [1, 2]
    np.testing.assert_array_equal(inputs.tokens[1, 0], batch.tokens[0][2].astype(np.float32))
    lengths = [int(n) for n in inputs.length]
    whole = batch.inputs().length
    assert lengths == [int(whole[3]) - 62, int(whole[0]) - 63]
    assert (view.read().vision, view.read().passes) == (3, 2)
    answers = [len(batch.ids[i]) + 1 for i in (3, 0)]
    assert view.read().positions == sum(lengths) + sum(answers) - 2  # the end is predicted, never read
