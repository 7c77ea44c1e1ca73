"""Loads a recogniser that is on vLLM servers: its small files from disk or the hub, and a proof of each server.

- A server that cannot work as it is set up fails the load, with what helps. One that does not answer is left out and
  proved later; the load fails if none answers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, normalizers

from backend.chat_format.spelling import TEXT_TAG, Spelling
from backend.chat_format.tokenizer import make_tokenizer
from backend.checkpoint.aligner_lookup import inspect_aligner
from backend.checkpoint.feature_extractor import chunk_s, feature_extractor
from backend.checkpoint.find import Checkpoint, find, inspect
from backend.checkpoint.hub import fetch
from backend.checkpoint.layout import EXAMPLES, Kind
from backend.checkpoint.validation import validate
from backend.errors import CheckpointRefused, InvalidOption, ServersRefused, named
from backend.options.load_options import LoadOptions
from backend.remote.api_key import read_api_key
from backend.remote.faults_of_servers import Fault, ServerFailure
from backend.remote.remote_recognizer import RemoteRecognizer
from backend.remote.server_client import ServerClient
from backend.remote.servers import Server, Servers

_log = logging.getLogger(__name__)


def inspect_remote(options: LoadOptions) -> Kind:
    """The kind of the model. Raises InvalidOption or CheckpointRefused where a moment shows that there is no key, no
    recogniser, or no aligner that is needed.
    """
    read_api_key(options)
    if options.task == "align" and not options.forced_aligner:
        raise InvalidOption("task", f"align needs the option forced_aligner, such as {EXAMPLES['aligner']}")
    inspect(_find(options), "recognizer", weights=False)
    inspect_aligner(options)
    return "recognizer"


def load_remote(options: LoadOptions) -> RemoteRecognizer:
    """Raises InvalidOption, CheckpointRefused or ServersRefused."""
    folder, tokenizer = small_files(options)
    spelling = Spelling(tokenizer)
    servers, client = connect(options, spelling)
    _refuse_or_leave_out(servers, prove(servers, client))
    length = (feature_extractor(folder) or {}).get("chunk_length")
    _log.info("recognition by %d server(s), %d passages at a time", len(servers), servers.places)
    return RemoteRecognizer(servers, client, spelling, chunk_s(length))


def connect(options: LoadOptions, spelling: Spelling) -> tuple[Servers, ServerClient]:
    """The servers that the options name, before any is asked. Raises InvalidOption."""
    client = ServerClient(options.engine_model, read_api_key(options), options.engine_timeout_s, spelling)
    return Servers(options.engine_urls, options.engine_concurrency), client


def _find(options: LoadOptions) -> Checkpoint:
    return find(options.model, file=options.model_file, folder=options.model_path, revision=options.revision)


def small_files(options: LoadOptions) -> tuple[Path, Tokenizer]:
    """The checkpoint's folder and its tokenizer. Raises CheckpointRefused."""
    checkpoint = _find(options)
    try:
        folder = (
            Path(checkpoint.name) if checkpoint.local else fetch(checkpoint.name, checkpoint.revision, weights=False)
        )
        validate(folder)
        tokenizer = make_tokenizer(folder)
    except CheckpointRefused:
        raise
    except Exception as error:  # foreign code: tokenizers and the hub document no common error
        _log.exception("the tokenizer could not be loaded")
        raise CheckpointRefused(
            f"the tokenizer of '{named(checkpoint.name)}' could not be loaded ({type(error).__name__}); the folder "
            "needs the checkpoint's config.json, and tokenizer.json or vocab.json and merges.txt"
        ) from error
    if tokenizer.token_to_id(TEXT_TAG) is None:
        raise CheckpointRefused(f"the tokenizer of '{named(checkpoint.name)}' lacks {TEXT_TAG}; fetch it again")
    # A server's text becomes tokens and text again, to the byte: it must not be normalised on the way.
    tokenizer.normalizer = normalizers.Sequence([])
    return folder, tokenizer


@dataclass(frozen=True)
class Proof:
    """What a server was found to do. `fault`: None where it can be used. `has_tag`: it named a language."""

    server: Server
    fault: Fault | None = None
    has_tag: bool = True


def prove(servers: Servers, client: ServerClient) -> list[Proof]:
    """Ask all servers at once. Raises nothing."""

    def proof_of(server: Server) -> Proof:
        try:
            return Proof(server, has_tag=client.prove(server))
        except ServerFailure as failure:
            return Proof(server, failure.fault)

    with ThreadPoolExecutor(len(servers), "prove") as threads:
        return list(threads.map(proof_of, servers))


def refusing(proofs: Sequence[Proof]) -> list[tuple[Server, Fault]]:
    """The servers for which a load is refused: those that are set up wrong, or all, if none can be used."""
    failed = [(proof.server, proof.fault) for proof in proofs if proof.fault is not None]
    setup = [(server, fault) for server, fault in failed if fault.is_setup]
    return setup or (failed if len(failed) == len(proofs) else [])


def _refuse_or_leave_out(servers: Servers, proofs: Sequence[Proof]) -> None:
    if refused := refusing(proofs):
        raise ServersRefused((server.url, fault.cause, fault.remedy) for server, fault in refused)
    for proof in proofs:
        if proof.fault is not None:
            servers.probed(proof.server, proof.fault)
        elif not proof.has_tag:
            _log.warning("%s answered noise without naming a language: is it a Qwen3-ASR?", proof.server)
