"""Tuned thresholds of audio, recognition, alignment and transcript: one place, each with its evidence.

- A number stands here if it was tuned or chosen and decides what is transcribed, where audio is cut or when a word
  begins and ends. Structural constants (sample rates, frame sizes, limits of formats) stay in their modules. Defaults
  that an operator can change stand in options.py.
- Each comment says what the number is, its unit, and what it was measured on. "Chosen, not measured" means that no
  measurement is known. A test that is named fails when the effect is lost; it does not prove the value to be the best.
- The names are imported one by one: `from backend.thresholds import MAX_GAIN`.
"""

from __future__ import annotations

# Voice activity detection (audio/vad.py)

# Audio that a detector runs through before the piece it judges, to fill its recurrent state. Chosen, not measured;
# test_vad.py: around a seam of long.flac more than 95 % of the frames are judged as in a run of ten seconds alone.
WARM_UP_S = 1.0
# The detector hears nothing below the first, and all from the second on, in Hz: hum and rumble decide neither levels
# nor speech. Of the 190 words of the demo recordings under rumble 20 dB above the speech 117 were found without the
# filter and 190 with it, under hum 10 dB above it 161 and 188. From 60 to 200 Hz an engine is taken for speech.
HIGH_PASS_FROM_HZ = 50.0
HIGH_PASS_UP_TO_HZ = 160.0
# Audio on each side of a frame that shares its gain, in seconds. Chosen, not measured; test_vad.py: a voice at 0.4 % of
# its recorded level, 7 s after the same voice at that level, is detected as completely, within 10 %.
LEVEL_CONTEXT_S = 5.0
# Audio before a frame, or behind it, that has a level of its own, in seconds, if its loudest and its quietest frame are
# so many dB apart: a voice's are 20 dB and more, those of noise 3 to 6 dB. At 30 and 40 dB below a voice that speaks
# just before and after them 189 of the 190 words of the demo recordings are found; without it 156 and 47. Of words at
# 1 % that begin 0.1 s after a beep 189 are found instead of 118.
LEVEL_SIDE_S = 1.0
VOICE_RANGE_DB = 12.0
# The same range where only the sound before a frame is known (audio/causal_vad.py): with 12 dB a gust of wind is 0.13 s
# of speech, with 15 and 18 none of 20 kinds of sound at three levels is. Of 190 words 40 dB below a voice just before
# and after them 7 are missed (offline 1).
CAUSAL_VOICE_RANGE_DB = 18.0
# Audio around a frame that shares its gain in any case, in seconds. With 0.16 the noise behind a voice is amplified
# while the detector still expects speech, which makes up to 1 s of it speech; with 0.3 and more none.
LEVEL_EDGE_S = 0.3
# Frames of 32 ms that a level must last to set the gain: 0.1 s, the shortest vowel. test_vad.py: clicks of 10 and 30 ms
# at 90 % of full scale hide no word of demo.wav at 3 % of its level.
SUSTAINED_FRAMES = 3
# RMS to which the loudest sustained sound nearby is amplified; speech peaks at three times its RMS, below full scale.
# Of 286 words of the demo recordings at 1 % amplitude 8 to 14 % were missed without levelling and none with it.
TARGET_RMS = 0.25
# Largest amplification, as a factor (60 dB). Derived: the last bit of a 16-bit recording stays below speech level.
MAX_GAIN = 1000.0
# Speech continues while the likelihood is no further below the threshold than this. Silero's own hysteresis.
LIKELIHOOD_HYSTERESIS = 0.15

# Channels of a recording into one (audio/decoding/downmix.py). Measured on long.flac, 3 minutes, with the shares 0.05
# and 0.1 and 3, 5 and 8 pieces: none of them takes reverberation of 0.3 to 1.2 s, two microphones 0.5 to 8 ms apart or
# pseudo stereo for an inverted channel. 0.1 and 3 notice most: all of an inverted voice over noise 15 dB below in each
# channel, and half of one over noise that both share.

# Pieces in which two channels are compared, in seconds: a syllable has several.
CHANNEL_PIECE_S = 0.032
# Share of a pair's energy that its sum has at most where the two cancel: channels that have nothing in common leave all
# of it, the same sound in both twice as much.
CANCELLED_ENERGY_SHARE = 0.1
# Pieces that cancel, of one run of opposed ones, from which it counts: a tenth of a second.
CANCELLED_PIECES = 3
# Energy of two channels in one piece, below which nothing is judged: the rounding of 16-bit samples has less.
MIN_CHANNEL_ENERGY = 1e-6
# Transition between two mixes: a channel that is turned over from one sample to the next would click.
SIGN_FADE_S = 0.005

# An empty transcript is a claim (pipeline/sound_tracks.py). Level of the loudest second, in dB of full scale, above
# which a recording without speech is not silent, and the reply says so. Chosen, not measured: quiet rooms have less
# than -50.
LOUD_DBFS = -40.0

# Memory for audio (pipeline/admission.py). Bytes that a recording takes at its peak, by the bytes of its samples: the
# detector filters a copy. Measured with an hour and twelve minutes of noise on two cores: 2.04 times, and 56 MB.
AUDIO_MEMORY_FACTOR = 2.1
# Bytes that long recordings leave free, for those 56 MB, for what the models compute with, and for short recordings.
# Chosen, not measured, as is the share of the machine's memory, or of its container's, that all audio may take.
AUDIO_MEMORY_RESERVE_BYTES = 128 << 20
AUDIO_MEMORY_SHARE = 0.5

# Chunks (audio/chunks.py). Chosen, not measured on speech, unless a line says otherwise; test_chunks.py holds their
# effects on tone bursts with pauses of 80 to 900 ms, clean and in noise: no word is cut, sentence pauses are preferred.

# Hops of 10 ms on each side of a cut over which loudness is averaged: 100 ms is a gap between words, 400 ms one between
# sentences.
LOUDNESS_REACH_HOPS = (5, 10, 20)
# Energies below this share of the loudest hop count as equal (70 dB): digital zeros are no better than a quiet room.
ENERGY_FLOOR = 1e-7
# Penalty at the far end of the search span, in dB: decides between equal pauses, never between a pause and a word.
DISTANCE_PENALTY_DB = 2.0
# Penalty for a cut inside detected speech, in dB: a quiet vowel is no pause, and a pause with music in it is one.
SPEECH_PENALTY_DB = 12.0
# A pause reaches as far as the level stays within this of its quietest place, in dB.
PAUSE_EDGE_DB = 6.0
# How far the ends of a pause are searched for, on each side of its quietest place.
PAUSE_SEARCH_S = 5.0
# Silence that a cut leaves on both of its sides: a pause of up to twice that is cut in its middle.
CUT_MARGIN_S = 1.0
# A longer pause is left out; a shorter one stays, because it tells the model where sentences end.
MAX_KEPT_PAUSE_S = 3.0

# Recognition: retries and fallbacks (pipeline/recognition.py). Chosen, not measured on real checkpoints, unless a line
# says otherwise; test_recognition.py and test_hallucination.py test the fallbacks. Decision 6 has the context.

# Token budget of an answer: tokens for each second of audio, and tokens that every answer gets, for the language tag
# and the digits or names of a very short clip. Greek has 18 of Qwen's tokens a second at its normal pace and 26 at one
# and a half times that, Hindi 16 and 25, English 4 and 6 (the tokenizer's counts on article 1 of the Universal
# Declaration of Human Rights, with published syllable rates; test_languages_pace.py). An answer that needs more is
# recognised in halves. It bounds answers that ramble: repetition loops are stopped by themselves.
TOKEN_BUDGET_PER_S = 25
MIN_TOKEN_BUDGET = 64
# A repetition loop, found while an answer is decoded (sequences/loop_detection.py): a phrase of at most so many tokens,
# a long sentence, repeated at least so many times in a row, and over at least so many tokens: "no, no, no" is none. A
# refrain that is taken for one costs a retry and no word.
MAX_LOOP_PHRASE_TOKENS = 48
MIN_LOOP_REPEATS = 3
MIN_LOOP_TOKENS = 18
# Tokens in a row that repeat earlier ones from which a stream holds text back, because a loop begins so. Derived: the
# last word is held back anyway, so of a phrase of words of one token nothing leaves twice; with one token, every second
# "the" would wait for the token after it.
MIN_REPETITION_TOKENS = 2
# Shortest chunk that is split, in seconds: halves of less than a second hold no sentence.
MIN_SPLIT_S = 2.0
# Fewer spoken letters (transcript/speech_rate.py) for a second of speech are too little text, for chunks with at least
# so many seconds of speech. Speech at half its normal pace has 6 to 10, a name that is spelt out nearly 2.
MIN_TEXT_LETTERS_PER_S = 1.5
MIN_TEXT_CHECK_S = 4.0
# Fewer letters for a second, over at least so many seconds of speech, are a sign that another language is spoken than
# was asked for: a warning only. Speech at half its normal pace has more. Chosen, not measured.
MIN_ASKED_LANGUAGE_LETTERS_PER_S = 2.5
MIN_ASKED_LANGUAGE_CHECK_S = 8.0
# Chunks with less speech, in seconds, are not given to the model: so little is the rounding of the detector's frames.
MIN_RECOGNIZED_SPEECH_S = 0.05
# Speech without text, in seconds, that is worth a retry: less is a cough, or an error of the detector.
MIN_RETRIED_SPEECH_S = 0.5
# Below this mean likelihood of the detector (0 to 1) it is doubtful that a sound is speech.
DOUBTFUL_LIKELIHOOD = 0.7
# Spoken letters (transcript/speech_rate.py) for a second of speech beyond which nobody can have said them. In 17
# languages the normal pace is 13 to 20 and one and a half times that at most 30 (test_languages_pace.py).
MAX_SPEECH_LETTERS_PER_S = 35.0
# A chunk in another language than its recording (pipeline/language_consistency.py). The share of the speech that a
# clear main language has at least: nearly two of three equal chunks. In an interpreted conversation each has half.
MIN_MAIN_LANGUAGE_SHARE = 0.65
# Seconds of speech below which the language that was detected in a chunk is doubted.
MAX_SHORT_SPEECH_S = 3.0
# Letters that the answer in the main language must have to be kept, by those of the first answer: of a chunk that is
# short or doubtful, and of one that is neither, whose translation would have about as many.
MIN_LANGUAGE_RETRY_SHARE = 0.75
MIN_LANGUAGE_RETRY_GAIN = 1.25
# Repetition penalties (arXiv 1909.05858) of tokens that the answer already holds, for the first, second and every later
# loop.
REPETITION_PENALTIES = (1.05, 1.1, 1.15)
# Share of the letters of a collapsed loop that a retry must have to be kept.
MIN_LOOP_RETRY_SHARE = 0.5

# Live transcription (live/). The figures of the demo models are in decision 22; what a user may change is an option.

# Sound that a window keeps before the first frame of speech, and behind the last one, in seconds: the detector is late
# at a soft beginning, and the model writes no full stop where a word is cut off. Chosen, not measured.
LIVE_LEAD_S = 0.5
LIVE_TAIL_S = 0.3
# Speech before the first decode of a window, in seconds. Of 15 recordings the first piece was wrong after 0.3, 0.5,
# 0.75 and 1.0 s of speech in 12, 7, 0, 0, with noise at 5 dB in 14, 9, 3, 4. No text leaves before a second decode.
LIVE_FIRST_SPEECH_S = 0.75
# Sound between two decodes of which the first was late, as a share of live_step_seconds. Chosen, not measured.
LIVE_MIN_STEP_SHARE = 0.5
# Longest window, in seconds: what each decode costs. Chosen: a sentence fits; encoder and prefill are 2.6 s of a core
# for the 0.6B. From this share of it on it is cut in the first pause of so many seconds.
LIVE_MAX_WINDOW_S = 15.0
LIVE_SOFT_WINDOW_SHARE = 2 / 3
LIVE_CUT_PAUSE_S = 0.2
# Pause between two decodes of a stream, as a share of the time that the first took: a slow machine, or one with many
# streams, decodes more seldom instead of queueing. Chosen, not measured.
LIVE_REST_SHARE = 0.5
# From the end of a stream's sound to its final result, in seconds, at most. The gateway waits for ten. The rest is for
# the search for speech in a minute of sound that waits, 0.25 s of a core, and for building the transcript. Chosen.
LIVE_FINAL_S = 8.0

# Alignment (pipeline/alignment.py, transcriber.py). Chosen, not measured, unless a line says otherwise.

# Longest chunk of a request for times, in seconds: the aligner is at its best up to a minute, and unreliable beyond
# 270 s.
MAX_ALIGNED_CHUNK_S = 60.0
# Runs of lost units are merged over at most so many good units between them.
MAX_MERGED_GAP_UNITS = 2
# Runs of a chunk that are aligned again one by one; more are aligned again as one, because each costs a run.
MAX_REALIGNED_RUNS = 4
# Time that a lost unit needs, in seconds; a run with less is aligned again together with its neighbours. Where the
# other units of the chunk are faster, as in Chinese, this share of their median is enough. test_alignment.py: units of
# 0.15 s, and of two paces in one chunk, keep their times to 0.05 s.
MIN_UNIT_ROOM_S = 0.25
MIN_UNIT_ROOM_SHARE = 0.8
# Audio beyond the neighbours' edges that is aligned again as well, in seconds: the edges may be wrong, too.
REALIGNMENT_MARGIN_S = 0.1

# Implausible runs (transcript/implausible_runs.py)

# Words that a run has at least, and the time that they take at least in real speech. The aligner's monotonic path gives
# a word one class of 80 ms where it has no evidence, so five lost words fill 0.4 s; the fastest five Chinese syllables
# or English function words take more than 0.5 s.
MIN_RUN_WORDS = 5
MIN_RUN_S = 0.45

# Prompt leakage (transcript/leakage.py). The behaviour is known from QwenLM/Qwen3-ASR issues 106, 140, 157 and 186.

# Words below which a text is an answer that happens to be in the prompt, unless it is all of the prompt. Chosen, not
# measured.
MIN_LEAKED_WORDS = 2
# Share of the text's words that stand in the prompt, in its order. Chosen, not measured.
MIN_LEAKED_SHARE = 0.8
# Words after which a text that does not recite the prompt is no longer suspected by a stream, in which a later recital
# can only be skipped. Chosen, not measured.
MIN_OWN_WORDS = 8

# Repetition (transcript/repetition.py). Chosen, not measured.

# Times that a phrase stands in a row at the end of a text before it is reduced to one. Three may be a refrain: only
# texts that the engine stopped in a loop are looked at.
MIN_REPEATS = 3
# Longest phrase that is looked for, in characters.
MAX_PHRASE_CHARS = 400

# Words, times and pauses (transcript/words.py, timing.py, pauses.py)

# Shortest word: one or two frames of any player; the aligner's own grid is 0.08 s. Chosen, not measured.
MIN_WORD_S = 0.02
# How far the aligner is trusted beyond the detected speech: the detector judges 32 ms at a time and misses soft
# beginnings and ends. A pause of less than twice that is none: the closure of a stop consonant lasts as long. Chosen,
# not measured.
ALIGNER_TOLERANCE_S = 0.2
# Shortest time for a letter: 25 letters a second are twice as fast as anybody reads aloud. Chosen, not measured.
MIN_LETTER_S = 0.04
# Digits from which a number, without its last zeros, may have pauses inside: it is dictated digit by digit or in
# groups. Chosen, not measured; the case is a telephone number (test_pauses.py).
MIN_GROUPED_DIGITS = 5
# Time for a digit: a part of speech that holds so much for each digit holds the whole number. Chosen, not measured.
DIGIT_S = 0.2
# What a speaker pauses after a mark, in characters of the text: two are 0.13 s of English and 0.45 s of Chinese.
SENTENCE_PAUSE_CHARS = 2.0
CLAUSE_PAUSE_CHARS = 1.0

# Matching of aligner units with the transcript (transcript/matching.py). Chosen, not measured, unless a line says
# otherwise; test_words.py: of 2000 words, one unit in ten lost and one in ten wrong, 90 % of the right units are found.

# Longest detour, in units and pieces skipped; (MAX_DETOUR + 1)² / 2 comparisons for a unit that fits nowhere.
# test_words.py: 2000 units in any order take less than 1.5 s.
MAX_DETOUR = 16
# What a match of part of a piece costs, in detours: it loses against a clean match at most one step away.
PARTIAL_MATCH_COST = 1.5
# Detours from which the next unit must confirm the match: a word like "the" is within reach of everything.
MIN_CONFIRMED_DETOUR = 3
# Share of a piece's letters that a unit must have if it lacks some.
MIN_SIMILARITY = 0.6
# Letters and units that must match in a row to jump further than MAX_DETOUR.
MIN_ANCHOR_LETTERS = 8
MIN_ANCHOR_UNITS = 3

# Segments and sentences (transcript/segments.py, sentences.py)

# A gap ends a segment from so many times the median gap, but not below the shortest: the reference behaviour's rule,
# not measured here.
GAP_FACTOR = 4
MIN_GAP_S = 0.3
# Most letters of a capitalised abbreviation that is in no table, before a word in lower case ("Dept. of"). Chosen, not
# measured; "Good. then" is rarer.
MAX_ABBREVIATION_LETTERS = 4

# Known texts (transcript/lyrics/slices.py, pipeline/known_text). Chosen, not measured, unless a line says otherwise;
# `make eval-aligner` has medleys with missing, wrong, repeated and exchanged lines (docs/benchmarks.md).

# Share of a line's letters that are recognised if it is heard. Sung words are recognised badly; of a line that is not
# sung, words agree by chance.
MIN_HEARD_SHARE = 0.5
# Recognised words among which those of one line lie: so many times its own words, and so many more.
MAX_LINE_STRETCH = 1.5
MAX_LINE_STRETCH_WORDS = 2
# Text that was misheard or missed and is still aligned: so many times the letters that were heard in its place, and so
# many more, which are two or three short words.
MAX_HOLE_SHARE = 2.0
MAX_HOLE_LETTERS = 12
# Letters of speech that the text does not have, within one slice: more of it, a verse, divides the slice.
MAX_UNKNOWN_LETTERS = 24
# How far beyond the words that were heard in its place the aligner may put a word of the text, in seconds.
HOLE_TOLERANCE_S = 0.3
# Sound that an aligner alone is given at once, in seconds. The demo aligner loses its place beyond 30 s, where its
# training ends; the published one is at its best up to a minute.
MAX_WINDOW_S = 30.0
# Text that a window is given, by its share. Demo aligner: of 45 words of 30 s, with 1.3 times the text one is
# misplaced, with 1.6 times two, with twice the text five, always the last ones.
WINDOW_TEXT_SHARE = 1.3
# Units before those that are too much that are aligned again in the next window.
UNSETTLED_UNITS = 3
# Pace of the text, in spoken letters (transcript/speech_rate.py) for a second of sound, by which its share is taken.
MIN_PACE_LETTERS_PER_S = 4.0
MAX_PACE_LETTERS_PER_S = 30.0
# The aligner's certainty (protocols.AlignedUnit), as the mean of so many units in a row, from which they are where they
# belong. Demo aligner, 30 s, 45 words: words of the sound have 0.93 to 0.99 in the median and 0.90 in the mean, words
# that are too much 0.01 to 0.1, another text of the same fifty words 0.5.
CERTAINTY_UNITS = 10
MIN_CERTAINTY = 0.6
# Share of a window's units from which this is enough; fewer must have this mean.
MIN_WINDOW_SHARE = 0.4
SURE_CERTAINTY = 0.8
# Lines that may be missing from the recording in a row: each costs a run of the aligner.
MAX_JUMP_LINES = 16
# Recognition servers (remote/). Chosen, not measured.

# Until a server accepts a connection, the TLS handshake included: one in the same network does in milliseconds.
CONNECT_TIMEOUT_S = 3.0
# How long a server that failed gets no passages, before it is probed.
LEFT_OUT_S = 10.0
# Silence after which a server with passages in flight is probed: a prefill behind those of 15 other passages.
PROBED_AFTER_S = 5.0
# For the answer to a probe: vLLM answers /health beside the model, and slowly under load.
PROBE_TIMEOUT_S = 5.0
# The longest a session waits for an answer before it looks at what else there is: cancelled passages, new ones, tokens
# for listeners, the aligner's batches.
REMOTE_STEP_S = 0.01
