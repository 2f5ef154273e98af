"""NumPy files: a folder with one `<layer>.npy` [n, d1, d2] per layer, or a single such file."""

import tokenize
from pathlib import Path

import numpy as np

from lorif.batch import natural_key
from lorif.importers.source import Array, ImporterError, Options, Source, SourceLayer

__all__ = ["NpySource", "open_array"]

#: NumPy evaluates the header as Python, and what is none as Python 2; each of the two has its own errors.
_HEADER_ERRORS = (
    *(ValueError, EOFError, TypeError, ArithmeticError, RecursionError, MemoryError, SyntaxError, tokenize.TokenError),
)


class NpySource(Source):
    """Layers in natural order of their names; in subfolders, the name has the folders' names and slashes."""

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(Path(path))
        if self.path.suffix == ".npz":
            raise ImporterError(
                f"{self.path}: an archive cannot be read in parts; unpack it: unzip -d FOLDER {self.path}"
            )
        if self.path.is_dir():
            found = {str(file.relative_to(self.path).with_suffix("")): file for file in self.path.rglob("*.npy")}
        else:
            found = {self.path.stem: self.path}
        if not found:
            raise ImporterError(f"{self.path}: expected files <layer>.npy, found none")
        self._arrays: dict[str, Array] = {}
        self._input_first = options.input_first
        for name in sorted(found, key=natural_key):
            file = found[name]
            array = open_array(file)
            if array.ndim == 2 and options.layout == "vector":
                array = array[:, :, None]
            if array.ndim != 3 or 0 in array.shape[1:]:
                raise ImporterError(
                    f"{file}: expected a matrix per example, [n, d1, d2], found shape {list(array.shape)}"
                    + ("; --layout vector imports a vector per example" if array.ndim == 2 else "")
                )
            if self._arrays and len(array) != self.row_count:
                raise ImporterError(
                    f"{file}: expected {self.row_count} rows, as in the other files, found {len(array)}"
                )
            self.row_count = len(array)
            self._arrays[name] = array
            turned = not options.input_first and options.layout != "vector"
            d1, d2 = array.shape[1:][::-1] if turned else array.shape[1:]
            self.layers.append(SourceLayer(name, d1, d2))
            self.files.append(file)
        self._turned = not options.input_first and options.layout != "vector"
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every layer, transposed where the files have the output side first."""
        rows = {name: np.asarray(array[start:stop]) for name, array in self._arrays.items()}
        return {name: values.swapaxes(1, 2) for name, values in rows.items()} if self._turned else rows


def open_array(path: Path, *shapes: tuple[int, ...], kinds: str = "f") -> Array:
    """A `.npy` file as an array without reading it; floating-point numbers unless other kinds are asked for."""
    try:
        # Not np.load: it guesses from the content, and unpickles or unpacks what it takes for something else.
        with np.errstate(over="raise"):
            array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ImporterError(f"{path} does not exist") from None
    except _HEADER_ERRORS as error:
        # What NumPy says may have several lines.
        said = " ".join(str(error).split())[:200]
        raise ImporterError(f"{path}: expected a complete NumPy file: {said}") from None
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise ImporterError(f"{path}: expected numbers of kind {kinds!r} of at most 8 bytes, found {array.dtype}")
    if shapes and array.shape not in shapes:
        shown = " or ".join(str(list(shape)) for shape in shapes)
        raise ImporterError(f"{path}: expected shape {shown}, found {list(array.shape)}")
    return array
