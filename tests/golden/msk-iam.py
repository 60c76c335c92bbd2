"""Makes msk-iam.jsonl: the tokens of PyPI's aws-msk-iam-sasl-signer-python at fixed clocks, decoded."""
import base64, datetime, json
from unittest import mock
import botocore.auth
from botocore.credentials import Credentials, CredentialProvider
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as msk
rows = [("us-east-1", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, 1741542380),
        ("eu-central-1", "ASIAEXAMPLE", "s/e+cret=", "Fwo/G+ZXIv==token with+odd/chars", 1760000000),
        ("cn-north-1", "AKID2", "x", "t", 951782400)]
class P(CredentialProvider):
    METHOD = CANONICAL_NAME = "p"
    def __init__(self, c): self.c = c
    def load(self): return self.c
for region, i, s, t, now in rows:
    at = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    name = "get_current_datetime"
    with mock.patch.object(botocore.auth, name, lambda *a, **k: at.replace(tzinfo=None)):
        tok, exp = msk.generate_auth_token_from_credentials_provider(region, P(Credentials(i, s, t)))
    url = base64.urlsafe_b64decode(tok + "=" * (-len(tok) % 4)).decode()
    print(json.dumps({"region": region, "id": i, "secret": s, "session": t, "now": now, "expires_ms": exp, "url": url}))
