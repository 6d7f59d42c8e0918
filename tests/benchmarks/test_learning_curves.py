import inspect
import json
import re
import sys
import time
from threading import Event

import pytest

from benchmarks.learning import clock, curves
from benchmarks.learning.clock import Marks, Tail
from benchmarks.learning.contestants import CONTESTANTS
from benchmarks.learning.processor_clock import go_by_processor_time
from pet_mlip.errors import UserError
from pet_mlip.train import module

OURS = """epoch,step,lr,elapsed,train_loss,energy_rmse,forces_rmse
1,10,0.004,3.5,0.9,40,200
2,20,0.003,6.9,0.5,,
3,30,0.001,10.2,0.4,20,100
"""
METATRAIN = """Epoch,learning rate,training loss,training energy RMSE (per atom),\
training forces RMSE,validation loss,validation energy RMSE (per atom),\
validation energy MAE (per atom),validation forces RMSE,validation forces MAE
,,,meV,meV/A,,meV,meV,meV/A,meV/A
   0,1e-4,1,50,500,1,40.5,30,400.5,300
   1,1e-4,1,30,300,1,20.5,15,200.5,150
"""


def mace_text():
    """Two epochs of two steps; a validation takes as long as a step, or a third of an epoch."""
    lines = []
    for epoch in (None, 0, 1):
        if epoch is not None:
            lines += [{"loss": 1, "time": 2.0, "mode": "opt", "epoch": epoch}] * 2
        errors = {"rmse_e_per_atom": 0.04 - 0.01 * (epoch or 0), "rmse_f": 0.2}
        lines.append({**errors, "time": 2.0, "mode": "eval", "epoch": epoch})
    return "\n".join(map(json.dumps, lines)) + "\n"


def test_our_validations_count_and_epochs_without_them_are_no_points():
    points = curves.ours(OURS, [5.0, 8.0, 11.0, 14.5])
    assert [(p.epoch, p.step, p.cpu) for p in points] == [(1, 10, 3.0), (3, 30, 9.5)]
    assert [(p.energy, p.forces) for p in points] == [(40.0, 200.0), (20.0, 100.0)]


def test_validations_of_mace_do_not_count():
    points = curves.mace(mace_text(), [4.0, 7.0, 13.0])
    assert [(p.epoch, p.step) for p in points] == [(1, 2), (2, 4)]
    assert [p.cpu for p in points] == pytest.approx([2.0, 6.0])
    assert [p.energy for p in points] == pytest.approx([40.0, 30.0])
    assert points[0].forces == pytest.approx(200.0)


def test_validations_of_metatrain_do_not_count():
    points = curves.metatrain(METATRAIN, [10.0, 20.0, 30.0], n_train=9, n_validation=1, batch=2)
    assert [(p.epoch, p.step) for p in points] == [(1, 4), (2, 8)]
    assert [p.cpu for p in points] == pytest.approx([9.0, 18.0])
    assert [(p.energy, p.forces) for p in points] == [(40.5, 400.5), (20.5, 200.5)]


def test_epochs_fill_the_budget_and_the_first_one_warms_up():
    points = curves.mace(mace_text(), [0.0, 30.0, 36.0])
    assert curves.seconds_per_epoch(points) == pytest.approx(4.0)
    assert curves.epochs_for(60.0, 4.0) == 15
    assert curves.epochs_for(61.0, 4.0) == 16
    assert curves.epochs_for(1.0, 4.0) == 1


def test_marks_are_counted_in_complete_lines(tmp_path):
    tail = Tail(tmp_path, CONTESTANTS["mace"].marks)
    assert tail.new() == 0
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "mace_run-0_train.txt"
    text = mace_text()
    for end, new in ((len(text) - 5, 2), (len(text), 1), (len(text), 0)):
        file.write_text(text[:end])
        assert tail.new() == new
    is_mark = CONTESTANTS["metatrain"].marks.is_mark
    assert is_mark("[2026][INFO] - Starting training") and is_mark("[2026][INFO] - Epoch:    0 | a")
    assert not is_mark("[2026][INFO] - Starting training from scratch")


@pytest.mark.skipif(sys.platform != "linux", reason="processor times are read from /proc")
def test_processor_time_is_noted_at_marks(tmp_path):
    work = (
        "import time\n"
        "for k in range(3):\n"
        "    while time.process_time() < 0.3 * k: pass\n"
        "    print('mark', k, flush=True)\n"
        "    time.sleep(0.2)\n"
    )
    marks = Marks("output.txt", lambda line: line.startswith("mark"))
    core = clock.cores()[0]
    found = clock.run([sys.executable, "-c", work], tmp_path, core, Event(), marks)
    assert len(found) == 3
    assert found[2] - found[0] == pytest.approx(0.6, abs=0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="processor times are read from /proc")
def test_what_fails_is_told_with_its_last_words_and_what_is_stopped_ends(tmp_path):
    with pytest.raises(UserError, match=r"failed .*output\.txt\): out of luck"):
        clock.run([sys.executable, "-c", "exit('out of luck')"], tmp_path, 0, Event())
    stop = Event()
    stop.set()
    with pytest.raises(UserError, match="stopped"):
        clock.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0, stop)


def test_the_clock_of_our_trainings_is_replaced(monkeypatch):
    used = re.findall(r"\btime\.\w+", inspect.getsource(module))
    assert set(used) == {"time.monotonic"}
    monkeypatch.setattr(module, "time", time)  # and is put back
    go_by_processor_time()
    assert module.time.monotonic is time.process_time
    assert time.monotonic is not time.process_time
