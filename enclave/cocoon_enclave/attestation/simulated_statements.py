"""TCB info and QE identity of the simulated TEE, in the form of Intel's "PCS API v4"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from cocoon_enclave.attestation.simulated_pki import PlatformTcb, moment_of


def tcb_info_json(
    tcb: PlatformTcb,
    *,
    now: int,
    days: int,
    evaluation: int,
    status: str = "UpToDate",
    advisories: Sequence[str] = (),
) -> str:
    """TCB info version 3 in which the platform is at the newest level with `status`."""
    issue, update = moment_of(now), moment_of(now) + timedelta(days=days)
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    level = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in tcb.sgx_components],
            "pcesvn": tcb.pce_svn,
            "tdxtcbcomponents": [{"svn": svn} for svn in (tcb.tee_tcb_svn[0], 0, *tcb.tee_tcb_svn[2:])],
        },
        "tcbDate": _date(issue.replace(hour=0, minute=0, second=0)),
        "tcbStatus": status,
        "advisoryIDs": list(advisories),
    }
    module_level = {
        "tcb": {"isvsvn": tcb.tee_tcb_svn[0]},
        "tcbDate": level["tcbDate"],
        "tcbStatus": "UpToDate",
    }
    return _compact(
        {
            "id": "TDX",
            "version": 3,
            "issueDate": _date(issue),
            "nextUpdate": _date(update),
            "fmspc": tcb.fmspc.hex(),
            "pceId": tcb.pce_id.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": evaluation,
            "tdxModule": module,
            "tdxModuleIdentities": [
                {"id": f"TDX_{tcb.tee_tcb_svn[1]:02X}", **module, "tcbLevels": [module_level]}
            ],
            "tcbLevels": [level],
        }
    )


def qe_identity_json(
    *, mrsigner: bytes, isv_svn: int, now: int, days: int, evaluation: int, status: str = "UpToDate"
) -> str:
    """QE identity version 2 of the simulated quoting enclave."""
    issue, update = moment_of(now), moment_of(now) + timedelta(days=days)
    level = {
        "tcb": {"isvsvn": isv_svn},
        "tcbDate": _date(issue.replace(hour=0, minute=0, second=0)),
        "tcbStatus": status,
    }
    return _compact(
        {
            "id": "TD_QE",
            "version": 2,
            "issueDate": _date(issue),
            "nextUpdate": _date(update),
            "tcbEvaluationDataNumber": evaluation,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": mrsigner.hex().upper(),
            "isvprodid": 2,
            "tcbLevels": [level],
        }
    )


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(document: dict[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))
