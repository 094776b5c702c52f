"""On PYTHONPATH of a child process: the toy task is then known there as any other task."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path


class _Loader(SourceFileLoader):
    """Loads ``pipelines.tasks`` and adds the toy task to what it finds."""

    def exec_module(self, module):
        super().exec_module(module)
        found = module.task_names
        module.task_names = lambda: [*found(), "toy"]


class _Finder(MetaPathFinder):
    """Finds the toy task, and the loader above for the package of tasks."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        if name == "pipelines.tasks.toy":
            return spec_from_file_location(name, Path(__file__).with_name("toy_task.py"))
        if name == "pipelines.tasks" and path is not None:
            file = Path(next(iter(path))) / "tasks" / "__init__.py"
            where = [str(file.parent)]
            return spec_from_file_location(
                name, file, loader=_Loader(name, str(file)), submodule_search_locations=where
            )
        return None


sys.meta_path.insert(0, _Finder())
