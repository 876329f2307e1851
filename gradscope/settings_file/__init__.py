"""The user's settings file: ``gradscope.toml``, or ``[tool.gradscope]`` in ``pyproject.toml``."""

from gradscope.settings_file.find import find_settings
from gradscope.settings_file.keys import nearest
from gradscope.settings_file.tables import FileSettings, ModelTable

__all__ = ["FileSettings", "ModelTable", "find_settings", "nearest"]
