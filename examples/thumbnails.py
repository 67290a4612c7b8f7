"""Thumbnails of a folder of pictures: python examples/thumbnails.py FOLDER [URL]

The pictures travel to the workers and back. Only the workers need Pillow (pip install pillow); without it they are
halved by a few lines of Python, which understand portable pixmaps (.ppm) alone.
"""

import concurrent.futures
import pathlib
import sys

from everythingfaas import Executor


def thumbnail(data, size=64):
    """The picture in `data`, no larger than `size`, in the same format."""
    import io

    try:
        from PIL import Image
    except ModuleNotFoundError:
        return halved(data, size)
    picture = Image.open(io.BytesIO(data))
    kind = picture.format
    picture.thumbnail((size, size))
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def halved(data, size):
    magic, width, height, _, pixels = data.split(maxsplit=4)
    if magic != b"P6":
        raise ValueError("without Pillow on the worker only binary portable pixmaps (P6) can be made smaller")
    width, height = int(width), int(height)
    step = max(1, -(-max(width, height) // size))
    rows = range(0, height, step)
    small = b"".join(pixels[3 * (y * width + x) :][:3] for y in rows for x in range(0, width, step))
    return b"P6 %d %d 255\n" % (len(range(0, width, step)), len(rows)) + small


folder = pathlib.Path(sys.argv[1])
url = sys.argv[2] if len(sys.argv) > 2 else None  # else FAAS_URL, or http://127.0.0.1:8000
target = folder / "thumbnails"
target.mkdir(exist_ok=True)
pictures = [path for path in sorted(folder.iterdir()) if path.is_file()]
with Executor(url) as executor:
    futures = {executor.submit(thumbnail, picture.read_bytes()): picture for picture in pictures}
    for future in concurrent.futures.as_completed(futures):
        picture = futures[future]
        if future.exception() is not None:
            print(f"{picture.name}: {future.exception()}")
            continue
        (target / picture.name).write_bytes(future.result())
        print(f"{picture.name}: {picture.stat().st_size} bytes became {len(future.result())}")
