# Add-ons that nodes need come before the nodes. CoreDNS comes after them, because it runs on them.

resource "aws_eks_addon" "pod_identity" {
  cluster_name  = aws_eks_cluster.this.name
  addon_name    = "eks-pod-identity-agent"
  addon_version = lookup(var.addon_versions, "eks-pod-identity-agent", null)
}

# Without enableNetworkPolicy, nothing enforces NetworkPolicies, those of the tenants included.
# https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy-configure.html
resource "aws_eks_addon" "vpc_cni" {
  cluster_name         = aws_eks_cluster.this.name
  addon_name           = "vpc-cni"
  addon_version        = lookup(var.addon_versions, "vpc-cni", null)
  configuration_values = jsonencode({ enableNetworkPolicy = "true" })

  pod_identity_association {
    role_arn        = aws_iam_role.vpc_cni.arn
    service_account = "aws-node"
  }

  depends_on = [aws_eks_addon.pod_identity, aws_iam_role_policy_attachment.vpc_cni]
}

# Reports broken GPUs, disks and networks as node conditions; node_repair_config acts on them.
resource "aws_eks_addon" "node_monitoring" {
  cluster_name  = aws_eks_cluster.this.name
  addon_name    = "eks-node-monitoring-agent"
  addon_version = lookup(var.addon_versions, "eks-node-monitoring-agent", null)
}

resource "aws_eks_addon" "kube_proxy" {
  cluster_name  = aws_eks_cluster.this.name
  addon_name    = "kube-proxy"
  addon_version = lookup(var.addon_versions, "kube-proxy", null)
}

resource "aws_eks_addon" "coredns" {
  cluster_name  = aws_eks_cluster.this.name
  addon_name    = "coredns"
  addon_version = lookup(var.addon_versions, "coredns", null)

  depends_on = [aws_eks_node_group.system]
}

# For kubectl top, which the runbooks use.
resource "aws_eks_addon" "metrics_server" {
  cluster_name  = aws_eks_cluster.this.name
  addon_name    = "metrics-server"
  addon_version = lookup(var.addon_versions, "metrics-server", null)

  depends_on = [aws_eks_node_group.system]
}

# Pod identity binds AWS permissions to a service account. With the node's role instead, every process of the node
# would have the CNI's permissions. Runway has no association, since it needs no AWS permission. Jobs have one only in
# the namespaces of var.tenants (tenants.tf).

data "aws_iam_policy_document" "pod_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account_id]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [aws_eks_cluster.this.arn]
    }
  }
}

resource "aws_iam_role" "vpc_cni" {
  name               = "${var.name}-vpc-cni"
  description        = "The VPC CNI of ${var.name} attaches addresses to nodes"
  assume_role_policy = data.aws_iam_policy_document.pod_trust.json
}

resource "aws_iam_role_policy_attachment" "vpc_cni" {
  role       = aws_iam_role.vpc_cni.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
}
