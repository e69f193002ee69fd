"""What the end of an invocation says."""

SUMMARY = Path(f"{OUT}/batch_summary.json")
SUMMARY_BEFORE = SUMMARY.stat().st_mtime_ns if SUMMARY.is_file() else None

TOLD = Path(f"{STATE}/metrics.json")
TOLD_BEFORE = TOLD.stat().st_mtime_ns if TOLD.is_file() else None

PAIRED = Path(f"{STATE}/{reference.RECORD}")
PAIRED_BEFORE = PAIRED.stat().st_mtime_ns if PAIRED.is_file() else None


def tell_outcome():
    """Say what was rendered and measured; raise, so that the exit code is 1, when models failed in this invocation."""
    if TOLD.is_file() and TOLD.stat().st_mtime_ns != TOLD_BEFORE:
        for line in leaderboard.told(TOLD):
            logger.info(line)
    elif PAIRED.is_file() and PAIRED.stat().st_mtime_ns != PAIRED_BEFORE:
        for line in reference.load(PAIRED).report:
            logger.info(line)
    if not SUMMARY.is_file() or SUMMARY.stat().st_mtime_ns == SUMMARY_BEFORE:
        return
    logger.info(metadata.table(SUMMARY))
    if warning := files.read_json(Path(f"{STATE}/discovery.json")).get("warning"):
        logger.warning(f"dailies: {warning}")
    if gone := metadata.left_behind(Path(OUT), Path(f"{STATE}/discovery.json")):
        logger.info(f"No longer selected, their frames stay where they are: {', '.join(gone)}")
    if failures := metadata.failures(SUMMARY):
        end_with(failures)


def tell_interruption():
    if not REASONS:
        logger.error(
            f"dailies: the reason is above, and in {OUT}/logs; what is rendered is kept for the next invocation."
        )
