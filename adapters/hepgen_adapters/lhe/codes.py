"""Return codes of the compiled LHE parser, and places in its state array."""

# Return codes of parse_events; from BAD_NUMBER on the event is invalid.
END_OF_TEXT, END_OF_FILE, NO_EVENT_LEFT, NO_ROW_LEFT, HARD_NUMBERS = 0, 1, 2, 3, 4
NEW_WEIGHT, NEW_POSITION, NEW_SCALE, NEW_ROOT, OPEN_COMMENT = 5, 6, 7, 8, 9
BAD_NUMBER, NOT_FINITE, SHORT_LINE, LONG_LINE, FEW_LINES, MANY_LINES = 10, 11, 12, 13, 14, 15
BAD_MOTHER, UNCLOSED, BAD_TAG, BAD_COUNT = 16, 17, 18, 19

# Places in the state array. MARK and MARK_END are addresses (of an error, of a name).
POSITION, N_EVENTS, N_ROWS, MARK, MARK_END, N_HARD, N_SOLVED, FOUND, WANTED = range(9)
N_NO_WEIGHT = 9
STATE_SIZE = 10
NO_SPAN = -1
SHORTEST_PARTICLE = 26
MAX_NAME = 1000
