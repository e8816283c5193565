# Two keys, so that permission to read logs does not include Secrets.

resource "aws_kms_key" "cluster" {
  description             = "Envelope encryption of the Secrets of cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key_of_account.json
}

resource "aws_kms_alias" "cluster" {
  name          = "alias/${var.name}-cluster"
  target_key_id = aws_kms_key.cluster.key_id
}

resource "aws_kms_key" "logs" {
  description             = "Control-plane logs and flow logs of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key_of_logs.json
}

resource "aws_kms_alias" "logs" {
  name          = "alias/${var.name}-logs"
  target_key_id = aws_kms_key.logs.key_id
}

# In a key policy "*" is the key itself. The statement for the account only delegates to IAM policies.
# Without it, a key can become impossible to change or delete.
# https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
data "aws_iam_policy_document" "key_of_account" {
  # checkov:skip=CKV_AWS_109: the principal is the account itself, and IAM decides which identities may manage the key
  # checkov:skip=CKV_AWS_111: the same: without an IAM policy, the statement allows no write
  # checkov:skip=CKV_AWS_356: in a key policy "*" is only its own key
  statement {
    sid       = "AccountDecidesByIam"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${var.account_id}:root"]
    }
  }
}

data "aws_iam_policy_document" "key_of_logs" {
  source_policy_documents = [data.aws_iam_policy_document.key_of_account.json]

  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
  statement {
    sid       = "CloudWatchLogs"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values = [
        "arn:aws:logs:${var.region}:${var.account_id}:log-group:/aws/eks/${var.name}/*",
        "arn:aws:logs:${var.region}:${var.account_id}:log-group:/aws/vpc/${var.name}/*",
      ]
    }
  }
}
