"""Time goes to whoever's code runs: by a clock that only the code under test advances."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from bench.overhead import attribution
from bench.overhead.attribution import Attribution


class Clock:
    """Stands still but for `work`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(attribution, "time", made)
    return made


@pytest.fixture
def module(clock: Clock) -> Iterator[Callable[[str, str], ModuleType]]:
    """Makes modules by name and source; `work(n)` in them takes n seconds, as C code would."""
    made: list[ModuleType] = []

    def make(name: str, source: str) -> ModuleType:
        module = ModuleType(name)
        module.__dict__.update(clock=clock, modules=sys.modules)
        source += "\ndef work(n):\n    clock.now += n\n"
        exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 (code of this test)
        sys.modules[name] = module
        made.append(module)
        return module

    yield make
    for module_made in made:
        if sys.modules.get(module_made.__name__) is module_made:
            del sys.modules[module_made.__name__]


def spent(function: Callable[[], object], package: str = "ours") -> float:
    attributed = Attribution(package)
    with attributed.running():
        function()
    return attributed.seconds


def test_what_we_let_libraries_do_is_ours_what_others_do_is_not(module: Callable) -> None:
    library = module("torch.made_up", "def multiply(): work(100)")
    model = module("model", "def forward(): work(1000); modules['ours.hook'].hook(); work(2000)")
    hook = module("ours.hook", "def hook(): work(1); modules['torch.made_up'].multiply()")
    around = module("ours.around", "def call(): work(10); modules['model'].forward(); work(20)")
    assert spent(library.multiply) == 0
    assert spent(model.forward) == 101
    assert spent(hook.hook) == 101
    assert spent(around.call) == 131


def test_another_package_of_a_like_name_is_not_ours(module: Callable) -> None:
    assert spent(module("ours_too", "def run(): work(1)").run) == 0


def test_reading_the_probe_is_charged_with_the_model_in_it(module: Callable) -> None:
    module("model", "def forward(): work(1000)")
    watch = "pathwatch.integrations.observing.watch"
    real = sys.modules.pop(watch, None)
    try:
        source = "def {}(): work(1); modules['model'].forward()\n"
        made = module(watch, source.format("after_step") + source.format("batch"))
        assert spent(made.after_step, "pathwatch") == 1001
        assert spent(made.batch, "pathwatch") == 1
    finally:
        if real is not None:
            sys.modules[watch] = real


def test_exceptions_end_what_they_leave(module: Callable) -> None:
    module("ours.fails", "def fails():\n    work(1)\n    raise ValueError\n")
    caller = "def run():\n    try: modules['ours.fails'].fails()\n    except ValueError: work(50)\n"
    assert spent(module("model", caller).run) == 1
