"""The one place that patches other libraries where they are broken, and that uses what mmengine keeps private.

MMagic 1.2.0 is the last release. On a current Python stack it meets a numpy without ``bool8``, a pkgutil without
``find_loader``, an mmcv without compiled ops, libraries that its editors are too old for, a ``torch.load`` that refuses
mmengine's training checkpoints, and a fault in mmengine.
``apply()`` corrects these. It has to run before MMagic is imported; ``glean_ext.plugin`` does that.
"""

from __future__ import annotations

import ast
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import pickle
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from glean_ext.errors import InputError, first_line
from glean_ext.mmcv_ops import MMCV_OPS, MMCVOps

if TYPE_CHECKING:
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    Execute = Callable[[ModuleType], None]  # what runs the code of a module

EDITORS = "mmagic.models.editors"
FACE_DRAWING = "controlnet_aux.mediapipe_face.mediapipe_face_common"  # of a package that MMagic's inferencers import
INFERENCER = "mmagic.apis.mmagic_inferencer"
LEFT_OUT: dict[str, tuple[str, str]] = {}  # class of MMagic -> its editor, and why that cannot be imported
LOG_STATISTICS = ("min", "max", "current", "mean")  # the methods that mmengine's log buffers are pickled with


logger = logging.getLogger(__name__)


def apply() -> None:
    """Make MMagic importable and usable on this machine's versions. A second call changes nothing."""
    name_numpy_bool8()
    name_find_loader()
    hook_import(EDITORS, leave_out_broken_editors)
    hook_import(FACE_DRAWING, do_without_mediapipe)
    supply_mmcv_ops()
    allow_training_checkpoints()
    take_folder_names_as_metainfo()


def name_numpy_bool8() -> None:
    """numpy 2 dropped the name ``bool8``, which MMagic uses; numpy 1 has it (deprecated) and is left alone."""
    import numpy as np

    if int(np.__version__.split(".")[0]) >= 2 and "bool8" not in vars(np):
        np.bool8 = np.bool_  # type: ignore[attr-defined]


def name_find_loader() -> None:
    """Python 3.14 dropped ``pkgutil.find_loader``, by which mmengine looks for mmcv's operators."""
    if hasattr(pkgutil, "find_loader"):
        return

    def find_loader(fullname: str) -> importlib.abc.Loader | None:
        spec = importlib.util.find_spec(fullname)
        return spec.loader if spec else None

    pkgutil.find_loader = find_loader


def allow_training_checkpoints() -> None:
    """Let mmengine read the training checkpoints it writes.

    Since torch 2.6 ``torch.load`` makes only tensors and plain containers unless a class is allow-listed. Training
    checkpoints also hold mmengine's log buffers: NumPy arrays, and ``getattr(HistoryBuffer, "mean")`` and the like.
    ``getattr`` and NumPy's constructors would let a file run code, so stand-ins take their names: one that knows
    these few attributes only, and those of :mod:`glean_ext.utils.plain_numpy`.
    """
    import torch

    if torch.__version__ < "2.6":  # compared as versions; older ones read everything and have no allow-list by name
        return
    from mmengine.logging.history_buffer import HistoryBuffer

    from glean_ext.utils.plain_numpy import NUMPY_NAMES

    numpy = [(stand_in, name) for name, stand_in in NUMPY_NAMES.items()]
    torch.serialization.add_safe_globals([HistoryBuffer, (_log_statistic, "builtins.getattr"), *numpy])


def _log_statistic(owner: type, name: str) -> Callable:
    """``getattr(owner, name)`` for the four statistics of mmengine's log buffer.

    Raises:
        UnpicklingError: Any other attribute.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in LOG_STATISTICS:
        raise pickle.UnpicklingError(f"A checkpoint may not ask for the attribute {name!r} of {owner!r}.")
    return getattr(owner, name)


def take_folder_names_as_metainfo() -> None:
    """Take a ``metainfo`` value such as ``'ffhq'`` as text where the working directory has a folder of that name.

    mmengine tries to open each such string as a file, and takes it as text if there is no such file. It does not
    expect a folder and stops with an IsADirectoryError.
    """
    from mmengine.dataset import base_dataset

    read = base_dataset.list_from_file
    if hasattr(read, "takes_folders"):
        return

    @functools.wraps(read)
    def list_from_file(*args: object, **kwargs: object) -> list[str]:
        try:
            return read(*args, **kwargs)
        except IsADirectoryError as error:
            raise FileNotFoundError(*error.args) from error

    list_from_file.takes_folders = True  # type: ignore[attr-defined]
    base_dataset.list_from_file = list_from_file


# ---------------------------------------------------------------- what mmengine keeps private


def infinite_iterator(loader: DataLoader) -> Iterator:
    """The batches of ``loader`` again and again, with mmengine's count of epochs for the sampler."""
    from mmengine.runner.loops import _InfiniteDataloaderIterator

    return _InfiniteDataloaderIterator(loader)


def end_workers(loader: DataLoader | None) -> None:
    """End the persistent workers of a data loader at once.

    Garbage collection takes their queues away first, and then waits five seconds for each worker.
    """
    if loader is not None:
        loader._iterator = None


def built_val_dataloader(runner: Runner) -> DataLoader | None:
    """The data loader of the validation, if its loop has been built. ``runner.val_loop`` would build it."""
    return getattr(runner._val_loop, "dataloader", None)


def is_resuming(runner: Runner) -> bool:
    """Whether the checkpoint that ``runner`` loads continues a run; otherwise only its weights are taken."""
    return runner._resume


def set_backward_count(wrapper: OptimWrapper, count: int) -> None:
    """Set how many backward passes ``wrapper`` has counted; ``wrapper.inner_count`` reads it.

    Gradients are accumulated over ``accumulative_counts`` of them, so several passes of one step must count once.
    """
    wrapper._inner_count = count


def clip_gradients(wrapper: OptimWrapper) -> None:
    """Clip the gradients as the ``clip_grad`` of ``wrapper`` says, and log their norm."""
    wrapper._clip_grad()


# ---------------------------------------------------------------- MMagic's inferencer


def offer_inferencers(kind: type, settings: Callable[[str], list[dict]], tasks: Mapping[str, str]) -> None:
    """Let ``MMagicInferencer`` build a ``kind`` for the model names of ``tasks``, and list them with their configs.

    MMagic chooses the class by a task that it reads from metafiles in its own folder; others cannot be added there.
    ``mmagic.apis`` imports 800 modules, so it is changed when someone imports it.

    Args:
        kind: The class; it is called with the arguments of ``MMagicInferencer``.
        settings: model name -> the ``Models`` of a metafile.
        tasks: model name -> what MMagic calls its task.
    """
    change = functools.partial(_hook_inferencer, kind=kind, settings=settings, tasks=tasks)

    def execute(run: Execute, module: ModuleType) -> None:
        run(module)
        change(module)

    if INFERENCER in sys.modules:
        change(sys.modules[INFERENCER])
    hook_import(INFERENCER, execute)


def _hook_inferencer(
    module: ModuleType, kind: type, settings: Callable[[str], list[dict]], tasks: Mapping[str, str]
) -> None:
    inferencer = module.MMagicInferencer
    make, read_metafiles = inferencer.__init__, inferencer.init_inference_supported_models_cfg
    if hasattr(make, "offers"):
        return
    own = [name for name in inferencer.inference_supported_models if name not in tasks]

    @functools.wraps(make)
    def __init__(self: Any, model_name: str | None = None, *args: Any, **kwargs: Any) -> None:
        if model_name in tasks:
            self.inferencer = kind(model_name, *args, **kwargs)
        else:
            make(self, model_name, *args, **kwargs)

    def init_inference_supported_models_cfg() -> None:
        if inferencer.inference_supported_models_cfg_inited:
            return
        inferencer.inference_supported_models = own  # it opens a metafile of MMagic for each
        try:
            read_metafiles()
        finally:
            inferencer.inference_supported_models = [*own, *tasks]
        for name, task in tasks.items():
            inferencer.inference_supported_models_cfg[name] = {"task": task, "settings": settings(name)}

    __init__.offers = tasks  # type: ignore[attr-defined]
    inferencer.__init__ = __init__
    inferencer.init_inference_supported_models_cfg = staticmethod(init_inference_supported_models_cfg)
    inferencer.inference_supported_models = [*own, *tasks]
    inferencer.inference_supported_models_cfg_inited = False  # read the metafiles again, with these models


# ---------------------------------------------------------------- modules that are run in another way


def hook_import(name: str, execute: Callable[[Execute, ModuleType], None]) -> None:
    """Have ``execute(run, module)`` run the module of that name, once it is imported; ``run(module)`` is the usual way.

    A module that has been imported, or that has a hook, is left alone.
    """
    if name not in sys.modules and not any(isinstance(f, _ImportHook) and f.name == name for f in sys.meta_path):
        sys.meta_path.insert(0, _ImportHook(name, execute))


class _ImportHook(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, execute: Callable[[Execute, ModuleType], None]) -> None:
        self.name, self.execute = name, execute

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == self.name else None
        if spec is None or spec.loader is None:
            return None
        spec.loader.exec_module = functools.partial(self.execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def leave_out_broken_editors(run: Execute, module: ModuleType) -> None:
    """Run ``mmagic.models.editors`` statement by statement, and leave out each import that fails.

    It imports every editor, so one that needs older versions of other libraries than are installed would take all of
    MMagic with it. Such an editor is logged and kept in :data:`LEFT_OUT`.
    """
    path = str(module.__file__)
    for statement in ast.parse(Path(path).read_bytes()).body:
        try:
            exec(compile(ast.Module([statement], []), path, "exec"), vars(module))
        except Exception as error:  # anything: an old editor meets a new library
            if not isinstance(statement, ast.ImportFrom):
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            logger.info("MMagic's %s is left out: %s", statement.module, reason)
            LEFT_OUT.update({alias.name: (str(statement.module), reason) for alias in statement.names})
    vars(module)["__all__"] = [name for name in vars(module).get("__all__", ()) if name in vars(module)]


def do_without_mediapipe(run: Execute, module: ModuleType) -> None:
    """Run a module as where mediapipe is not installed, if it fails with the installed one.

    controlnet_aux can do without mediapipe, but not with one that lacks ``solutions``, as all after 0.10.21 do.
    """
    try:
        run(module)
    except Exception as error:  # other versions raise errors of several types
        logger.debug("%s does without mediapipe: %s", module.__name__, first_line(error))
        installed = {"mediapipe": sys.modules["mediapipe"]} if "mediapipe" in sys.modules else {}
        sys.modules["mediapipe"] = None  # type: ignore[assignment]  # an import of it fails
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is not installed
                run(module)
        finally:
            del sys.modules["mediapipe"]
            sys.modules.update(installed)


def refusing(name: str) -> Callable[..., NoReturn]:
    """A stand-in for a class of an editor that was left out; calling it says why there is no such class."""
    editor, reason = LEFT_OUT[name]

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise InputError(
            f"{name} is not available: MMagic's editor {editor} does not work with the installed versions of other "
            f"libraries ({reason}). Install the versions that MMagic 1.2.0 was made for."
        )

    return refuse


def supply_mmcv_ops() -> None:
    """Put a stand-in for mmcv's compiled ops into ``sys.modules``, unless there are real ones or no mmcv at all."""
    if MMCV_OPS in sys.modules:
        return
    mmcv = importlib.util.find_spec("mmcv")  # does not import it
    if mmcv is None or importlib.machinery.PathFinder.find_spec(MMCV_OPS, mmcv.submodule_search_locations):
        return
    sys.modules[MMCV_OPS] = MMCVOps()
