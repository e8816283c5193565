# AWS permissions of the tenants' jobs, by Pod Identity: a role per tenant, for its own prefix of one S3 bucket.
# `runway tenants render` makes the service account, and opens the agent's address with `pod_identity: true`.

resource "aws_iam_role" "tenant" {
  for_each = var.tenants

  name               = "${var.name}-tenant-${each.key}"
  description        = "Jobs of tenant ${each.key} of ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.pod_trust.json
}

resource "aws_eks_pod_identity_association" "tenant" {
  for_each = var.tenants

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value
  service_account = "runway-job"
  role_arn        = aws_iam_role.tenant[each.key].arn
}

resource "aws_iam_role_policy" "tenant" {
  for_each = var.tenants

  name   = "data"
  role   = aws_iam_role.tenant[each.key].id
  policy = data.aws_iam_policy_document.tenant[each.key].json
}

data "aws_iam_policy_document" "tenant" {
  for_each = var.tenants

  statement {
    sid       = "ListOwnPrefix"
    actions   = ["s3:ListBucket"]
    resources = ["arn:aws:s3:::${var.data_bucket}"]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${each.key}/*"]
    }
  }

  statement {
    sid       = "UseOwnPrefix"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["arn:aws:s3:::${var.data_bucket}/${each.key}/*"]
  }
}
