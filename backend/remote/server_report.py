"""`python -m backend.remote.server_report MODEL PAIR ...`: what a load over `engine_url` would find, as a JSON object.

MODEL is a folder or a hub id, each PAIR an option as `name:value`. For the doctor, whose process loads no tokenizer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from backend.chat_format.spelling import Spelling
from backend.errors import AsrError
from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options
from backend.remote.remote_loader import connect, prove, refusing, small_files


def report(model: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`refusal`: of a load that asks no server, "" if there is none. `servers`: each with its proof, in order.

    Of a server: `url`; `cause` and `remedy` of what is wrong with it, "" if nothing is; `refuses`: whether the load is
    refused for it; `has_tag`: whether it named a language.
    """
    try:
        options = with_options(LoadOptions(model), pairs, "")
        servers, client = connect(options, Spelling(small_files(options)[1]))
    except AsrError as refusal:
        return {"refusal": str(refusal), "servers": []}
    proofs = prove(servers, client)
    refused = [server for server, _ in refusing(proofs)]
    return {
        "refusal": "",
        "servers": [
            {
                "url": proof.server.url,
                "cause": proof.fault.cause if proof.fault else "",
                "remedy": proof.fault.remedy if proof.fault else "",
                "refuses": proof.server in refused,
                "has_tag": proof.has_tag,
            }
            for proof in proofs
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report(sys.argv[1], sys.argv[2:])) + "\n")
