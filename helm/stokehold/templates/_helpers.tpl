{{- define "stokehold.labels" -}}
app.kubernetes.io/name: stokehold
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* What Services, budgets and policies find the pods of a component by: (dict "root" $ "component" "operator"). */}}
{{- define "stokehold.selector" -}}
app.kubernetes.io/name: stokehold
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "stokehold.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the webhook's tls.crt and tls.key. Each source has its own, so that a change of source never
     makes two owners fight over one. */}}
{{- define "stokehold.webhookSecret" -}}
{{- $source := .Values.webhook.certificate.source -}}
{{- if eq $source "Secret" -}}
{{ required "webhook.certificate.secretName is needed with source Secret" .Values.webhook.certificate.secretName }}
{{- else if eq $source "CertManager" -}}
{{ .Release.Name }}-webhook-cert-manager
{{- else -}}
{{ .Release.Name }}-webhook
{{- end -}}
{{- end -}}

{{/* Whom the API server trusts as the webhook: the authority (base64; empty if cert-manager fills it in), and the one
     that was trusted before, for replicas go on serving with the old certificate until they have heard of the new. */}}
{{- define "stokehold.authorities" -}}
{{- $authority := .authority | default "" | b64dec | trim -}}
{{- $trusted := .trusted | b64dec -}}
{{- if hasPrefix $authority $trusted -}}
{{ .trusted }}
{{- else -}}
{{- $before := regexFind "(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----" $trusted -}}
{{- printf "%s\n%s\n" $authority $before | trim | printf "%s\n" | b64enc -}}
{{- end -}}
{{- end -}}

{{/* Fails beside another release: each has a leader of its own, and two leaders would undo each other's work. */}}
{{- define "stokehold.onlyOne" -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $other := index $labels "app.kubernetes.io/instance" | default "" -}}
{{- if and (eq (index $labels "app.kubernetes.io/name" | default "") "stokehold") (ne $other $.Release.Name) -}}
{{- $home := index (.metadata.annotations | default dict) "meta.helm.sh/release-namespace" -}}
{{- fail (printf "Stokehold is installed in this cluster already: upgrade or uninstall release %s in namespace %s" $other $home) -}}
{{- end -}}
{{- end -}}
{{- end -}}
