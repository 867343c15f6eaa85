"""The command line of `datasets/prepare.py`: get, import, check, repair and look at data sets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ultralytics.utils import LOGGER

from small_object.errors import UserError

EXAMPLES = """examples:
  python datasets/prepare.py ASS1                                  fetch, lay out and split ASS1
  python datasets/prepare.py ASS2 --archive ~/Downloads/ASS2.zip   the same from an archive at hand
  python datasets/prepare.py --check my/data.yaml --imgsz 1280     find what would hurt training
  python datasets/prepare.py --check my/data.yaml --fix            and repair what is safe into my-fixed/
  python datasets/prepare.py --stats my/data.yaml                  how small are the small objects?
  python datasets/prepare.py --from coco annotations.json --out datasets/mine
  python datasets/prepare.py --from voc VOC2012 --out datasets/mine
"""


def main(argv: list[str] | None = None, root: Path | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.
        root: Folder that holds `datasets/`, the working folder by default.

    Returns:
        Exit status: 0; 1 where a check found something that would hurt training, or something failed.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if sum(map(bool, (args.names, args.check, args.stats, args.source))) != 1:
        parser.error("give data sets (ASS1, ASS2 or all), or one of --check, --stats and --from")
    if args.source and not args.out:
        parser.error("--from needs --out DIR, the folder of the new data set")
    if args.fix and not args.check:
        parser.error("--fix goes with --check")
    if args.archive and len(args.names) != 1:
        parser.error("--archive goes with one data set, ASS1 or ASS2")
    try:
        return _run(args, root or Path.cwd())
    except UserError as error:
        LOGGER.error(str(error))
    except OSError as error:
        LOGGER.error(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except KeyboardInterrupt:
        LOGGER.error("stopped; start it again to go on")
    return 1


def _run(args: argparse.Namespace, root: Path) -> int:
    """Do what was asked for; give the exit status."""
    # what one capability needs is imported for that one alone
    if args.check:
        from small_object.datasets.check import check

        if not args.fix:
            return int(check(args.check, args.imgsz, args.out).harmful)
        from small_object.datasets.fix import fix

        folder = Path(args.check).absolute().parent
        return int(fix(args.check, args.out or folder.with_name(f"{folder.name}-fixed"), args.imgsz).harmful)
    if args.stats:
        from small_object.datasets.stats import stats

        stats(args.stats, args.imgsz, args.out)
    elif args.source:
        from small_object.datasets.convert import from_coco, from_voc

        kind, path = args.source
        if kind == "coco":
            from_coco(path, args.out, args.images, args.split)
        elif kind == "voc":
            from_voc(path, args.out, args.split)
        else:
            raise UserError(f"--from {kind}: choose coco or voc")
    else:
        from small_object.datasets.airport import SETS, prepare

        names = list(SETS) if "all" in args.names else args.names
        for name in names:
            folder = args.out if args.out and len(names) == 1 else (args.out or root / "datasets") / name
            prepare(name, folder, args.archive, args.split, args.cache, args.overwrite)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        description="Get ASS1 and ASS2, import other sets, check and repair them, and see how small their objects are.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="ASS1|ASS2|all", help="data sets to fetch, lay out and split")
    add("--archive", type=Path, help="archive of the data set that you got by hand")
    add("--split", type=Path, help="split to follow: CSV with the columns image and split (train or val)")
    add("--cache", type=Path, help="folder that keeps the archives (default: ~/.cache/small-object-detection)")
    add("--overwrite", action="store_true", help="make the data set anew where it is in its place already")
    add("--check", metavar="DATA.yaml", help="check a data set; exit status 1 where something would hurt training")
    add("--fix", action="store_true", help="with --check: repair what is safe into a new folder")
    add("--stats", metavar="DATA.yaml", help="count objects by class and size, as a table and a picture")
    add("--imgsz", type=_size, default=640, help="image size of the training that the data is for (default: 640)")
    add("--from", dest="source", nargs=2, metavar=("coco|voc", "PATH"), help="import COCO's FILE.json or VOC's DIR")
    add("--images", type=Path, help="with --from coco: folder of the images, where it is not beside the file")
    add("--out", type=Path, help="folder for the result")
    return parser


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number of pixels, at least 32")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
