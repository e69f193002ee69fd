"""What the end of an invocation says."""

import time

STARTED = time.time()

SUMMARY, TOLD, PAGE, PAIRED = LAYOUT.summary, LAYOUT.verdict, LAYOUT.page, LAYOUT.pairing


def written(path):
    """When a file was written; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


BEFORE = {path: written(path) for path in (SUMMARY, TOLD, PAGE, PAIRED)}


def is_new(path):
    """Whether this invocation wrote a file."""
    return written(path) not in (None, BEFORE[path])


def tell_outcome():
    """Say what was rendered and measured; raise, so that the exit code is 1, when models failed in this invocation."""
    if is_new(TOLD):
        for line in leaderboard.report(TOLD):
            logger.info(line)
    elif is_new(PAIRED):
        for line in reference.load(PAIRED).report:
            logger.info(line)
    if is_new(SUMMARY):
        tell_models()
    if settings.compare and PAGE.is_file() and (is_new(PAGE) or is_new(SUMMARY)):
        logger.info(f"Compare the models: open {PAGE}")
    if is_new(SUMMARY) and (failures := metadata.failures(SUMMARY)):
        end_with(failures)


def tell_models():
    """Say how each model went, and what was not rendered."""
    logger.info(metadata.table(SUMMARY))
    logger.info(records.counts(LAYOUT))
    if warning := DiscoveryIndex.load(LAYOUT.index).warning:
        logger.warning(f"dailies: {warning}")
    if gone := metadata.left_behind(LAYOUT):
        logger.info(f"No longer selected, their frames stay where they are: {', '.join(gone)}")
    if substituted := metadata.substituted(SUMMARY):
        logger.warning(f"dailies: {substituted}")
    logger.info(f"Frames: {LAYOUT.output_dir}/<model>/; all models in one file: {SUMMARY}")


def tell_interruption():
    """Say where the reason is; with --quiet all, which hides it, the reason itself."""
    if REASONS:
        return
    kept = "what is rendered is kept for the next invocation"
    if is_silent():
        for reason in logs.failures(LAYOUT.logs, since=STARTED):
            logger.error(f"dailies: {reason}")
        logger.error(f"dailies: all logs are in {LAYOUT.logs}; {kept}.")
    else:
        logger.error(f"dailies: the reason is above, and in {LAYOUT.logs}; {kept}.")
