# All rules that tflint includes. The AWS rules are a separate plugin; README.md names the replacement.
plugin "terraform" {
  enabled = true
  preset  = "all"
}
