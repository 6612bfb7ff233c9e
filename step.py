"""What the step scripts share: inputs, outputs, metadata, and errors people can read.

Only this file and the scripts know Valohai and folders; `yolov3_tf2` does not.
"""

import difflib
import math
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

# Before TensorFlow is imported: warnings and errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import requests
import valohai
import valohai_yaml
from absl import flags, logging
from tqdm import tqdm

from yolov3_tf2.errors import InputError

REPOSITORY = Path(__file__).resolve().parent
LOCAL_OUTPUTS = Path(".valohai/outputs")


def run(main):
    """Runs a step's `main` and ends the process: 0, or 1 with one clear message."""
    flags.FLAGS(sys.argv[:1])  # absl writes a warning where its flags are not parsed.
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)
    logging.get_absl_handler().addFilter(
        # TensorFlow's own notes, such as how long it took to shard a checkpoint.
        lambda record: record.levelno > 20 or "tensorflow" not in record.pathname
    )
    logging.set_verbosity(logging.INFO)
    try:
        main()
    except InputError as error:
        logging.error("error: %s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        logging.error("interrupted")
        sys.exit(130)


def import_tensorflow():
    """Imports TensorFlow without the lines on CPU features that its start prints.

    They come from C++ before any log level applies, six to each step, an "error" for
    every machine without a GPU among them. What a failing import has written is shown.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices()
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return tensorflow


def parameters(declared, inputs):
    """Returns the values of the step's parameters, checked against their declaration.

    Args:
        declared: the dict that the script gave to `valohai.prepare`.
        inputs: the dict of inputs that it gave.

    Returns:
        A dict from name to value.

    Raises:
        InputError: a value is of the wrong type, out of its range or none of its
            choices, or the command line has a name that the step does not know.
    """
    known = [*declared, *inputs]
    for argument in sys.argv[1:]:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise InputError(
                f"{argument}: there is no parameter or input '{name}' "
                f"({f'did you mean --{close[0]}?' if close else 'known: '}"
                f"{'' if close else ', '.join(known)})."
            )
    values = {}
    for name, spec in declared.items():
        value = valohai.parameters(name).value
        default = spec["default"]
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(default):
            raise InputError(
                f"--{name}: expected {type(default).__name__}, got {value!r}."
            )
        if "choices" in spec and value not in spec["choices"]:
            raise InputError(
                f"--{name}: expected one of {', '.join(spec['choices'])}, "
                f"got {value!r}."
            )
        low, high = spec.get("min", -math.inf), spec.get("max", math.inf)
        # Written so that NaN fails it too.
        if isinstance(value, int | float) and not low <= value <= high:
            raise InputError(
                f"--{name}: expected a value from {low:g} to {high:g}, got {value:g}."
            )
        values[name] = value
    return values


def check_size(size):
    """Raises an `InputError` unless `size` suits the network's strides."""
    if size % 32:
        raise InputError(
            f"--size: expected a multiple of 32, got {size}; "
            f"{size // 32 * 32 or 32} and {(size // 32 + 1) * 32} are the nearest."
        )


def input_paths(name, optional=False):
    """Returns the files of an input as a list of `pathlib.Path`.

    On one's own machine, a required input that was not given is taken from the newest local
    outputs of the step that feeds it in `valohai.yaml`, and the log says so.

    Raises:
        InputError: a file that was named is missing, or an input that is not optional
            has no files.
    """
    step_name = valohai.internals.global_state.step_name
    try:
        # Archives stay closed: the steps read them without extracting.
        found = [Path(p) for p in valohai.inputs(name).paths(process_archives=False)]
    except requests.RequestException as error:
        raise InputError(
            f"input '{name}' of {step_name}: the download failed ({error}); give a "
            f"file of your own with --{name} FILE."
        ) from error
    except ValueError as error:
        if "no URI" not in str(error):
            raise
        raise InputError(
            f"input '{name}' of {step_name} is a folder; give the files in it, as in "
            f"--{name} FOLDER/*."
        ) from error
    missing = [path for path in found if not path.is_file()]
    given = _given_on_command_line(name)
    if missing or (given and not found):
        named = ", ".join(map(str, missing)) or ", ".join(given)
        raise InputError(
            f"input '{name}' of {step_name}: expected a file, got {named}, which does "
            "not exist; is the path right?"
        )
    # An optional input that was left out stays out: it belongs to what was given.
    if not found and not optional and not os.environ.get("VH_JOB_ID"):
        found = _newest_local_outputs(step_name, name)
    if not found and not optional:
        raise InputError(_how_to_get(step_name, name))
    return found


def input_folder(name, marker):
    """Returns the folder of an input's files, None where it has no file `marker`."""
    for path in input_paths(name):
        if path.name == marker:
            return path.parent
    raise InputError(
        f"input '{name}': expected a file {marker} among the files given, got none; "
        "give all files of the folder that the earlier step wrote."
    )


@contextmanager
def staged_outputs():
    """Gives a folder whose contents become the step's outputs when the block succeeds.

    Files and folders at its top move to the outputs under their names at the end, each
    in one move: no later step can take a half-written one for a whole one. Where the
    block fails, nothing of it is left.
    """
    root = outputs_folder()
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=root) as staging:
        try:
            yield Path(staging)
            for path in sorted(Path(staging).iterdir()):
                target = root / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
        except BaseException:
            shutil.rmtree(staging)
            # The folders that a local run makes for its outputs, where still empty.
            with suppress(OSError):
                root.rmdir()
                root.parent.rmdir()
            Path(staging).mkdir(parents=True)
            raise


def outputs_folder():
    """Returns the folder that the step's outputs go to; makes it."""
    return Path(valohai.outputs().path(".keep")).parent


def log_metadata(**values):
    """Prints one JSON line of metadata; what is not finite is left out."""
    clean = {}
    for name, value in values.items():
        if not isinstance(value, str):
            value = int(value) if float(value).is_integer() else float(value)
            if not math.isfinite(value):
                continue
        clean[name] = value
    with valohai.logger() as logger:
        logger.log(**clean)
    sys.stdout.flush()


def progress(iterable, **options):
    """A tqdm bar: live on a terminal, a line every ten seconds in a log."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, mininterval=interval, dynamic_ncols=True, **options)


def read_class_names(path):
    """Reads a class file: one name a line.

    Raises:
        InputError: there is no name in it, or one twice.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: expected one class name a line, got none.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the class names {', '.join(twice)} occur twice.")
    return names


def _given_on_command_line(name):
    """The values that follow `--name` in the arguments, up to the next option."""
    values, taking = [], False
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            option, _, value = argument[2:].partition("=")
            taking = option == name
            values += [value] if taking and value else []
        elif taking:
            values.append(argument)
    return values


def _feeding_edges(step_name, name):
    """The edges of the pipelines in valohai.yaml that end in an input of a step."""
    text = (REPOSITORY / "valohai.yaml").read_text(encoding="utf-8")
    config = valohai_yaml.parse(text)
    edges = [
        edge
        for pipeline in config.pipelines.values()
        for edge in pipeline.edges
        if (edge.target_node, edge.target_key) == (step_name, name)
    ]
    return config, edges


def _newest_local_outputs(step_name, name):
    """The files of the newest local run that an edge into this input would bring."""
    _, edges = _feeding_edges(step_name, name)
    runs = {}
    for edge in edges:
        for path in LOCAL_OUTPUTS.glob(f"*/{edge.source_node}/{edge.source_key}"):
            run = path.relative_to(LOCAL_OUTPUTS).parts[0]
            if path.is_file() and not path.name.startswith("."):
                runs.setdefault(run, []).append(path)
    if not runs:
        return []
    newest = max(runs, key=lambda run: max(p.stat().st_mtime for p in runs[run]))
    found = sorted(runs[newest])
    logging.info(
        "%s: taken from the newest local outputs, %s (%d %s)",
        name,
        os.path.commonpath([path.parent for path in found]),
        len(found),
        "file" if len(found) == 1 else "files",
    )
    return found


def _how_to_get(step_name, name):
    message = f"{step_name}: input '{name}' is missing. Give it with --{name} FILE"
    config, edges = _feeding_edges(step_name, name)
    for edge in edges:
        source = config.steps[edge.source_node]
        command = source.command[-1] if source.command else ""
        script = command.split()[1].removeprefix("./")
        needs = " ".join(
            f"--{source_name} FILE"
            for source_name, spec in source.inputs.items()
            if not spec.optional and not spec.default
            and not _feeding_edges(edge.source_node, source_name)[1]
        )  # fmt: skip
        message += f", or make it with: python {script} {needs}".rstrip()
    return message + "."
